"""Tasks as people see them: working time apart from waiting."""

from mesh.core.history.task_attempts import DONE, TaskAttempt, TaskHistory


def story(*attempts: TaskAttempt) -> TaskHistory:
    ended = attempts[-1].ended_ms if attempts else None
    return TaskHistory("t", "work", "ask", 1, ("work",), "", "c", 1_000, DONE, ended, list(attempts))


def test_time_on_the_topic_is_waiting_and_not_working() -> None:
    task = story(TaskAttempt(1, 1_000, 19_480, waited_ms=18_400))
    assert (task.took_ms, task.worked_ms, task.waited_ms) == (18_480, 80, 18_400)


def test_time_between_attempts_is_waiting() -> None:
    task = story(TaskAttempt(1, 1_000, 1_010), TaskAttempt(2, 1_210, 1_225, waited_ms=5))
    assert (task.took_ms, task.worked_ms, task.waited_ms) == (225, 20, 205)


def test_a_task_without_an_answer_has_no_working_time() -> None:
    task = story()
    assert (task.took_ms, task.worked_ms, task.waited_ms) == (None, None, 0)


def test_a_worker_whose_clock_is_ahead_makes_no_negative_time() -> None:
    assert story(TaskAttempt(1, 1_000, 1_010, waited_ms=500)).worked_ms == 0
