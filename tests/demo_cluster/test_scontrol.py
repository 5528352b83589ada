from __future__ import annotations

from demo_cluster.scontrol import parse_record, parse_records


def test_values_may_hold_spaces_and_equal_signs() -> None:
    record = parse_record(
        "JobId=7 JobName=two words Comment=canhazgpu: pid=12 of eve ReqB:S:C:T=0:0:*:* CPUs/Task=1"
    )

    assert record == {
        "JobId": "7",
        "JobName": "two words",
        "Comment": "canhazgpu: pid=12 of eve",
        "ReqB:S:C:T": "0:0:*:*",
        "CPUs/Task": "1",
    }


def test_empty_values_stay_empty() -> None:
    assert parse_record("NodeList= Power= NumNodes=1") == {
        "NodeList": "",
        "Power": "",
        "NumNodes": "1",
    }


def test_one_record_per_line() -> None:
    assert [record["JobId"] for record in parse_records("JobId=1\nJobId=2\n\n")] == ["1", "2"]
