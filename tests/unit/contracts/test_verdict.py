from hypothesis import given
from hypothesis import strategies as st

from tidewheel.contracts.verdict import Phase, Reason, Severity, combine

PHASES = st.sampled_from(list(Phase))


def reason(phase, severity=Severity.CRITICAL):
    return Reason(check="c", phase=phase, message=f"{severity} {phase}", severity=severity)


def test_a_failed_warning_is_kept_and_does_not_decide():
    verdict = combine([reason(Phase.SUCCESSFUL), reason(Phase.SUCCESSFUL), reason(Phase.FAILED, Severity.WARNING)])
    assert verdict.is_successful
    assert [warning.message for warning in verdict.warnings] == ["warning Failed"]
    assert verdict.explain() == "2 checks passed, 1 warning"


def test_what_decided_is_explained_without_the_warnings_beside_it():
    verdict = combine([reason(Phase.FAILED), reason(Phase.FAILED, Severity.WARNING)])
    assert verdict.phase is Phase.FAILED
    assert verdict.explain() == "critical Failed"


def test_warnings_alone_are_no_evidence():
    assert combine([reason(Phase.SUCCESSFUL, Severity.WARNING)]).phase is Phase.INCONCLUSIVE


@given(st.lists(PHASES, min_size=1), st.lists(PHASES))
def test_warnings_never_change_the_phase(critical, warned):
    alone = combine([reason(phase) for phase in critical])
    beside = combine([*(reason(phase, Severity.WARNING) for phase in warned), *(reason(phase) for phase in critical)])
    assert beside.phase is alone.phase
