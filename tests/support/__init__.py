"""Helpers of the suite; their assertions are explained as those of the tests are."""

import pytest

pytest.register_assert_rewrite("support.command", "support.preview1")
