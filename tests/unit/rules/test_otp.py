"""Steps, codes, windows and URIs: the vectors of the RFCs, and oathtool as an independent peer."""

import subprocess
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import peers

from pki2fad.rules import otp
from pki2fad.rules.otp import Parameters

ALGORITHMS = ("SHA1", "SHA256", "SHA512")
DIGITS = (6, 7, 8)
PERIODS = (1, 30, 60, 120)
SEED = bytes(range(100, 132))

walls = st.floats(0, 2**40) | st.integers(0, 2**40)
periods = st.integers(1, 120)


def oathtool(parameters: Parameters, wall: int, *more: str) -> list[str]:
    """The codes that oathtool makes at a Unix time."""
    made = subprocess.run(
        [
            peers.require("oathtool"),
            f"--totp={parameters.algorithm}",
            f"--digits={parameters.digits}",
            f"--time-step-size={parameters.period}s",
            f"--now=@{wall}",
            *more,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.split()


def every_kind() -> pytest.MarkDecorator:
    kinds = [Parameters(a, d, p) for a in ALGORITHMS for d in DIGITS for p in PERIODS]
    names = [f"{kind.algorithm}-{kind.digits}-{kind.period}s" for kind in kinds]
    return pytest.mark.parametrize("parameters", kinds, ids=names)


def test_codes_are_those_of_rfc_4226(rfc: dict[str, list[dict[str, object]]]) -> None:
    assert len(rfc["hotp"]) == 10
    for vector in rfc["hotp"]:
        seed = bytearray.fromhex(str(vector["seed_hex"]))
        step = vector["counter"]
        assert isinstance(step, int)
        assert otp.make_code(seed, Parameters(), step) == vector["code"]


def test_steps_and_codes_are_those_of_rfc_6238(rfc: dict[str, list[dict[str, object]]]) -> None:
    assert len(rfc["totp"]) == 18
    for vector in rfc["totp"]:
        wall, digits, period = vector["time"], vector["digits"], vector["period"]
        assert isinstance(wall, int)
        assert isinstance(digits, int)
        assert isinstance(period, int)
        parameters = Parameters(str(vector["algorithm"]), digits, period)
        step = otp.step_at(wall, period)
        assert step == vector["step"]
        seed = bytearray.fromhex(str(vector["seed_hex"]))
        assert otp.make_code(seed, parameters, step) == vector["code"]


@every_kind()
def test_codes_are_those_of_oathtool(parameters: Parameters) -> None:
    for wall in (0, 59, 1_700_000_000, 20_000_000_000):
        expected = oathtool(parameters, wall, "--window=5", SEED.hex())
        step = otp.step_at(wall, parameters.period)
        codes = [otp.make_code(bytearray(SEED), parameters, step + later) for later in range(6)]
        assert codes == expected


@pytest.mark.parametrize("length", [16, 20, 32, 63, 64])
def test_codes_of_seeds_of_any_length_are_those_of_oathtool(length: int) -> None:
    seed = bytearray(range(length))
    code = otp.make_code(seed, Parameters("SHA512"), otp.step_at(1_700_000_000, 30))
    assert [code] == oathtool(Parameters("SHA512"), 1_700_000_000, seed.hex())


def test_making_a_code_leaves_the_seed_as_it_was() -> None:
    seed = bytearray(SEED)
    otp.make_code(seed, Parameters(), 1)
    assert seed == SEED


def test_there_is_no_code_for_a_step_before_1970() -> None:
    assert otp.make_code(bytearray(SEED), Parameters(), -1) == ""


@pytest.mark.parametrize(
    ("wall", "period", "step", "valid_for"),
    [
        (0, 30, 0, 30),
        (0.001, 30, 0, 30),
        (1, 30, 0, 29),
        (29, 30, 0, 1),
        (29.999, 30, 0, 1),
        (30, 30, 1, 30),
        (59.5, 60, 0, 1),
        (119.999, 120, 0, 1),
        (120, 120, 1, 120),
        (7.999, 1, 7, 1),
        (8, 1, 8, 1),
        (1_700_000_009.25, 30, 56_666_666, 1),
        (1_700_000_010, 30, 56_666_667, 30),
    ],
)
def test_a_step_begins_and_ends_on_its_second(wall: float, period: int, step: int, valid_for: int) -> None:
    assert (otp.step_at(wall, period), otp.valid_for(wall, period)) == (step, valid_for)


@given(wall=walls, period=periods)
@example(wall=29.999999999999996, period=30)
@example(wall=1_699_999_999.9999998, period=1)
def test_a_step_is_left_when_valid_for_is_over_and_not_before(wall: float, period: int) -> None:
    step, seconds = otp.step_at(wall, period), otp.valid_for(wall, period)
    assert step * period <= wall < (step + 1) * period
    assert 1 <= seconds <= period
    assert otp.step_at(int(wall) + seconds - 1, period) == step
    assert otp.step_at(int(wall) + seconds, period) == step + 1


@given(wall=walls, ahead=st.floats(-1000, 1000))
def test_after_the_seconds_until_a_moment_it_has_come(wall: float, ahead: float) -> None:
    moment = wall + ahead
    seconds = otp.seconds_until(wall, moment)
    assert isinstance(seconds, int)
    assert seconds >= 1
    assert moment - wall <= seconds < max(1, moment - wall) + 1


def test_codes_are_equal_only_if_every_digit_is() -> None:
    assert otp.equal("123456", "123456")
    for other in ("123457", "023456", "12345", "1234567", ""):
        assert not otp.equal("123456", other)


@pytest.mark.parametrize("algorithm", ["sha1", "SHA-1", "MD5", "SHA224", "", None, 1])
def test_another_algorithm_is_refused_with_those_that_there_are(algorithm: str) -> None:
    with pytest.raises(ValueError, match="algorithm must be one of SHA1, SHA256, SHA512"):
        Parameters(algorithm=algorithm)


@pytest.mark.parametrize("digits", [5, 9, 0, -6, 6.0, "6", True, None])
def test_another_number_of_digits_is_refused(digits: int) -> None:
    with pytest.raises(ValueError, match="digits must be 6, 7 or 8"):
        Parameters(digits=digits)


@pytest.mark.parametrize("period", [0, 121, -30, 30.0, "30", True, None])
def test_another_period_is_refused(period: int) -> None:
    with pytest.raises(ValueError, match="period must be 1 to 120 seconds"):
        Parameters(period=period)


@pytest.mark.parametrize("period", [1, 120])
def test_the_shortest_and_the_longest_period_are_taken(period: int) -> None:
    assert Parameters(period=period).period == period


def test_the_parameters_are_those_of_the_issuers_in_use_unless_given() -> None:
    assert Parameters() == Parameters("SHA1", 6, 30)


@every_kind()
def test_an_authenticator_reads_the_same_codes_out_of_the_uri(parameters: Parameters) -> None:
    uri = urllib.parse.urlsplit(otp.otpauth_uri(bytearray(SEED), parameters, "deploy@web-1.example"))
    fields = dict(urllib.parse.parse_qsl(uri.query, strict_parsing=True))
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert urllib.parse.unquote(uri.path) == "/pki2fad:deploy@web-1.example"
    assert fields["issuer"] == "pki2fad"
    # What is left out has the default of the URI format, which authenticators assume.
    read = Parameters(
        fields.get("algorithm", "SHA1"), int(fields.get("digits", 6)), int(fields.get("period", 30))
    )
    assert read == parameters
    step = otp.step_at(1_700_000_000, parameters.period)
    code = otp.make_code(bytearray(SEED), parameters, step)
    assert oathtool(read, 1_700_000_000, "--base32", fields["secret"]) == [code]


@pytest.mark.parametrize("length", range(16, 65))
def test_the_secret_in_a_uri_is_the_seed_whatever_its_length(length: int) -> None:
    seed = bytearray(range(length))
    query = urllib.parse.urlsplit(otp.otpauth_uri(seed, Parameters(), "default")).query
    secret = dict(urllib.parse.parse_qsl(query))["secret"]
    assert "=" not in secret
    verbose = oathtool(Parameters(), 0, "--verbose", "--base32", secret)
    assert seed.hex() in verbose
