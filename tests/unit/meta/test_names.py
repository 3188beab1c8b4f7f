"""Names and labels are accepted and refused in apimachinery's words."""

import pytest

from controlplane.meta import names

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (names.dns1123_label, "a"),
        (names.dns1123_label, "0-9" + "a" * 60),
        (names.dns1123_subdomain, "a.b-c.d"),
        (names.dns1035_label, "web-1"),
        (names.wildcard_dns1123_subdomain, "*.example.com"),
        (names.qualified_name, "app"),
        (names.qualified_name, "app.kubernetes.io/Name_x.y"),
        (names.label_value, ""),
        (names.label_value, "V1_a.b-c"),
        (names.port_name, "http-2"),
        (names.config_map_key, "..x".removeprefix("..")),
        (names.config_map_key, ".profile"),
        (names.c_identifier, "_PATH1"),
    ],
)
def test_accepted(check, text):
    assert check(text) == []


@pytest.mark.parametrize(
    ("check", "text", "messages"),
    [
        (names.dns1123_label, "A", [LABEL]),
        (names.dns1123_label, "a\n", [LABEL]),
        (names.dns1123_label, "a.b", ["must not contain dots"]),
        (names.dns1123_label, "a" * 64, ["must be no more than 63 characters"]),
        (names.dns1123_subdomain, "a" * 254, ["must be no more than 253 characters"]),
        (names.port_name, "80", ["must contain at least one letter (a-z)"]),
        (names.port_name, "a--b", ["must not contain consecutive hyphens"]),
        (names.port_name, "a" * 16, ["must be no more than 15 characters"]),
        (names.config_map_key, "..", ["must not be '..'"]),
        (names.config_map_key, "..x", ["must not start with '..'"]),
    ],
)
def test_refused(check, text, messages):
    assert check(text) == messages


@pytest.mark.parametrize(
    ("check", "text", "beginning"),
    [
        (names.dns1035_label, "1a", "a DNS-1035 label must consist of"),
        (names.qualified_name, "a/b/c", "a qualified name must consist of"),
        (names.qualified_name, "/a", "prefix part must be non-empty"),
        (names.qualified_name, "A/a", "prefix part a lowercase RFC 1123 subdomain"),
        (names.qualified_name, "a/", "name part must be non-empty"),
        (names.qualified_name, "-a", "name part must consist of"),
        (names.label_value, "a b", "a valid label must be an empty string or consist of"),
        (names.wildcard_dns1123_subdomain, "example.com", "a wildcard DNS-1123 subdomain must start"),
        (names.c_identifier, "1a", "a valid C identifier must start"),
    ],
)
def test_refused_with_regular_expression(check, text, beginning):
    assert check(text)[0].startswith(beginning)


def test_generated_names_fit_and_differ():
    made = {names.generate_name("x" * 70) for _ in range(50)}
    assert len(made) == 50
    assert all(len(name) == 63 and name.startswith("x" * 58) for name in made)
    assert set("".join(name[58:] for name in made)) <= set("bcdfghjklmnpqrstvwxz2456789")
