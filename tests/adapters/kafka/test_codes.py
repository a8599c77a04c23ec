"""Codes that aiokafka does not know."""

from aiokafka import errors

from mesh.adapters.kafka import codes


def test_codes_are_known_by_their_numbers_once_installed() -> None:
    codes.install()
    assert errors.for_code(87) is codes.InvalidRecordError
    assert not codes.InvalidRecordError.retriable
    for number in (74, 75, 78):
        assert errors.for_code(number).errno == number
        assert errors.for_code(number).retriable


def test_what_the_library_knows_stays_as_it_is() -> None:
    codes.install()
    assert errors.for_code(3) is errors.UnknownTopicOrPartitionError
    assert errors.for_code(12_345) is errors.UnknownError
