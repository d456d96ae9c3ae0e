"""Policy: what it accepts, what it refuses and how it says so, and its presets."""

import copy
import math
import pickle

import pytest

from fastcache import ConfigurationError, MemoryCache, Policy


def test_policy_defaults_are_the_documented_ones():
    """A policy with a ttl only: jitter and single flight, nothing else."""
    policy = Policy(60)
    assert (policy.ttl, policy.jitter, policy.stale_for, policy.retry_after) == (60, 0.1, 0, 10)
    assert (policy.soft_timeout, policy.hard_timeout, policy.refresh_ahead, policy.missing_ttl) == (None,) * 4
    assert (policy.single_flight, policy.lease, policy.store) == (True, True, "foreground")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *[("ttl", wrong) for wrong in (0, -1, math.nan, True, "60")],
        *[("jitter", wrong) for wrong in (-0.1, 1, 1.5, math.nan, "0.1", True)],
        *[("stale_for", wrong) for wrong in (-1, math.nan, math.inf, "1", None)],
        *[("retry_after", wrong) for wrong in (0, -1, math.nan, None)],
        *[("soft_timeout", wrong) for wrong in (0, -1, math.nan, math.inf, "1")],
        *[("hard_timeout", wrong) for wrong in (0, -1, math.nan, math.inf, "1")],
        *[("refresh_ahead", wrong) for wrong in (0, -1, math.nan, True)],
        *[("missing_ttl", wrong) for wrong in (0, -1, math.nan, "1")],
        ("single_flight", 1),
        ("lease", None),
        ("store", "later"),
    ],
)
def test_policy_refuses_values_out_of_range(field, wrong):
    """Where it is made, with the name, the value and what is allowed."""
    options = {"ttl": 60, "stale_for": 5, field: wrong}
    with pytest.raises(ConfigurationError) as caught:
        Policy(**options)
    assert field in str(caught.value)
    assert repr(wrong) in str(caught.value)


def test_policy_refuses_combinations_without_effect():
    """A soft timeout needs a stale value to fall back on, and must come before the hard one."""
    with pytest.raises(ConfigurationError, match="stale_for"):
        Policy(60, soft_timeout=1)
    with pytest.raises(ConfigurationError, match="hard_timeout"):
        Policy(60, stale_for=5, soft_timeout=2, hard_timeout=1)


def test_policy_is_a_value():
    """Frozen, comparable, copied and pickled."""
    policy = Policy.resilient(60)
    with pytest.raises(AttributeError):
        policy.ttl = 5
    assert pickle.loads(pickle.dumps(policy)) == copy.copy(policy) == Policy.resilient(60)
    assert not hasattr(policy, "__dict__")


@pytest.mark.parametrize("preset", [Policy.resilient, Policy.hot])
def test_presets_take_any_ttl(preset):
    """An infinite one, too, that never gets stale."""
    assert preset(60).stale_for > 0
    assert preset(math.inf).stale_for == 0
    with pytest.raises(ConfigurationError):
        preset(-1)


def test_wrong_policy_is_a_type_error_where_it_is_given():
    """At construction and in the call."""
    with pytest.raises(TypeError, match="policy must be a Policy"):
        MemoryCache(policy=60)
    with pytest.raises(TypeError, match="policy must be a Policy"):
        MemoryCache().get_or_load("a", len, policy={"ttl": 1})
