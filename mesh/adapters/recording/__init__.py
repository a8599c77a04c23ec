"""Recordings in files: a log for readers."""

from mesh.adapters.recording.recording_log import RecordingLog, recorded_head

__all__ = ["RecordingLog", "recorded_head"]
