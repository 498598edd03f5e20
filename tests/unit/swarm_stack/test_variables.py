from hypothesis import given
from hypothesis import strategies as st

from swarm_stack.deployment import BackupS3, Deployment
from swarm_stack.sizes import Sizes
from swarm_stack.variables import MARKET, NO_RESOLVER, POOLS, Replicas, core_limits, variables

SIZES = Sizes.read()
SCALED = (*POOLS, *POOLS.values(), MARKET)
NOBODY = frozenset[str]()


def test_a_first_deployment_has_the_least_of_everything_and_no_market() -> None:
    assert Replicas.wanted(SIZES, {}, NOBODY).of == {
        "api-pool": 3,
        "mt5-api": 3,
        "websocket-pool": 2,
        "mt5-stream": 2,
        "mt5-market": 0,
        "grafana": 1,
    }


@given(st.fixed_dictionaries({name: st.integers(1, 10) for name in SCALED}))
def test_deploying_again_keeps_what_was_scaled(present: dict[str, int]) -> None:
    wanted = Replicas.wanted(SIZES, present, NOBODY).of
    assert {name: wanted[name] for name in SCALED} == present


def test_a_first_deployment_that_was_broken_off_is_taken_up() -> None:
    first = Replicas.wanted(SIZES, {}, NOBODY)
    waiting = Replicas.none(first)
    assert not any(waiting.of[name] for name in SCALED)
    assert Replicas.wanted(SIZES, waiting.of, NOBODY) == first


def test_what_is_left_out_once_comes_back_when_it_is_not_left_out_again() -> None:
    without = Replicas.wanted(SIZES, {}, frozenset({"grafana"}))
    assert without.of["grafana"] == 0
    assert Replicas.wanted(SIZES, without.of, NOBODY).of["grafana"] == 1


def test_backups_know_names_outside_where_they_have_a_second_place_and_only_there() -> None:
    without = variables("mt5", Deployment(domain="x"), SIZES, {})
    assert (without["BACKUP_DNS"], without["S3_BUCKET"]) == (NO_RESOLVER, "")
    place = BackupS3(bucket="b", resolver="9.9.9.9", endpoint_url="https://s3.test")
    having = variables("mt5", Deployment(domain="x", backup_s3=place), SIZES, {})
    assert (having["BACKUP_DNS"], having["S3_BUCKET"]) == ("9.9.9.9", "b")
    assert having["S3_ENDPOINT_URL"] == "https://s3.test"


@given(st.integers(1, 64))
def test_no_limit_is_above_the_cores_of_a_node(cores: int) -> None:
    assert all(1 <= int(limit) <= cores for limit in core_limits(cores).values())
