import pytest

from tidewheel.contracts.recipe import ValidateConfig
from tidewheel.contracts.verdict import Severity
from tidewheel.quality.severity import severity_of

CHOSEN = {"drift": Severity.WARNING, "drift price": Severity.CRITICAL, "calibration": Severity.CRITICAL}


@pytest.mark.parametrize(
    ("check", "want"),
    [
        ("drift tab", "warning"),
        ("drift price", "critical"),
        ("drift price ks", "critical"),
        ("drift prices", "warning"),  # words count, not letters
        ("calibration click ece", "critical"),
        ("label_rate click", "warning"),  # the default
        ("expect train tab not be null", "critical"),
    ],
)
def test_the_longest_words_of_the_recipe_count(check, want):
    assert severity_of(check, CHOSEN) == want


def test_a_severity_for_checks_that_do_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match="severity names drfit; expected keys that begin with calibration, drift"):
        ValidateConfig(severity={"drfit price": Severity.WARNING})
