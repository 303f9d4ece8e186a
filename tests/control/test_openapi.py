"""The OpenAPI document is correct: requests made from it are answered as described, and wrong ones are rejected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from tests.control.controlled import INFORMATION, answering
from tests.serving import ENVIRONMENT, Serving, held_port

TOKEN = "a-long-random-secret"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    environment = ENVIRONMENT | {"VHOSTCOMM_CONTROL_TOKEN": TOKEN}
    answers: dict[int, bytes] = dict.fromkeys(range(1 << 8), b"") | {10: INFORMATION}
    with (
        held_port() as port,
        Serving("--sock", folder / "nas", "--control", f"tcp:127.0.0.1:{port}", env=environment),
        answering(folder / "nas", dict(answers)),
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_each_operation_matches_the_document(base: str, mode: str) -> None:
    import schemathesis  # half a second, which each process of the tests would spend
    from schemathesis.checks import not_a_server_error

    # One connection per request: a connection that a malformed request has closed must not be used again.
    headers = {"Authorization": f"Bearer {TOKEN}", "Connection": "close"}
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json", headers=headers)
    tried = []
    for found in schema.exclude(path="/events").get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        modes = {
            "positive": schemathesis.GenerationMode.POSITIVE,
            "negative": schemathesis.GenerationMode.NEGATIVE,
        }

        @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=modes[mode]))
        def check(case: Any) -> None:
            if mode == "positive" and isinstance(case.body, dict):
                # The guest doesn't answer every number, and ignores a shutdown.
                case.body = {key: 0.05 if key in {"timeout", "wait"} else each for key, each in case.body.items()}
                if case.path.endswith("/call"):
                    case.body["timeout"] = 0.05
            if mode == "positive" and "{name}" in case.path:
                case.path_parameters["name"] = "nas"
            # 502 to 504 are valid answers if they are described; 500 never is.
            case.call_and_validate(headers=headers, excluded_checks=[not_a_server_error])

        try:
            check()
        except Unsatisfiable:
            continue  # the operation has no wrong requests
        tried.append(operation.label)
    assert len(tried) >= (11 if mode == "positive" else 6), tried
