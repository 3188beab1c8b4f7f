"""Rules for names, label keys and label values, in apimachinery's words (`pkg/util/validation`, v0.32).

Called by validation of resources, by selectors and by name generation. Each check returns the messages
upstream gives; an empty list means the text is valid. Nothing here raises.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import lru_cache

LABEL_MAX = 63
SUBDOMAIN_MAX = 253

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_WILDCARD = r"\*\." + _SUBDOMAIN
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"

_label = re.compile(_LABEL).fullmatch
_subdomain = re.compile(_SUBDOMAIN).fullmatch
_dns1035 = re.compile(_DNS1035).fullmatch
_wildcard = re.compile(_WILDCARD).fullmatch
_qualified = re.compile(_QUALIFIED).fullmatch
_label_value = re.compile(_LABEL_VALUE).fullmatch
_config_key = re.compile(_CONFIG_KEY).fullmatch
_http_path = re.compile(_HTTP_PATH).fullmatch
_c_identifier = re.compile(_C_IDENTIFIER).fullmatch
_port_characters = re.compile("[-a-z0-9]+").fullmatch
_any_letter = re.compile("[a-z]").search

_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_DNS1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_WILDCARD_MESSAGE = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must "
    "consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_QUALIFIED_MESSAGE = (
    "must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_CONFIG_KEY_MESSAGE = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_C_IDENTIFIER_MESSAGE = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_GENERATED_MAX = 63


def regex_error(message: str, pattern: str, examples: Sequence[str] = ()) -> str:
    """Upstream's form of `message` with examples and the regular expression."""
    if not examples:
        return f"{message} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def max_length_error(length: int) -> str:
    return f"must be no more than {length} characters"


def dns1123_label(text: str) -> list[str]:
    """Names of namespaces, containers, pods' volumes: at most 63 lower-case characters without dots."""
    messages = [] if len(text) <= LABEL_MAX else [max_length_error(LABEL_MAX)]
    if not _label(text):
        if _subdomain(text):
            messages.append("must not contain dots")
        else:
            messages.append(regex_error(_LABEL_MESSAGE, _LABEL, ("my-name", "123-abc")))
    return messages


def dns1123_subdomain(text: str) -> list[str]:
    """Names of most objects: at most 253 characters, labels joined by dots."""
    messages = [] if len(text) <= SUBDOMAIN_MAX else [max_length_error(SUBDOMAIN_MAX)]
    if not _subdomain(text):
        messages.append(regex_error(_SUBDOMAIN_MESSAGE, _SUBDOMAIN, ("example.com",)))
    return messages


def dns1035_label(text: str) -> list[str]:
    """Names of Services: a label that starts with a letter."""
    messages = [] if len(text) <= LABEL_MAX else [max_length_error(LABEL_MAX)]
    if not _dns1035(text):
        messages.append(regex_error(_DNS1035_MESSAGE, _DNS1035, ("my-name", "abc-123")))
    return messages


def wildcard_dns1123_subdomain(text: str) -> list[str]:
    """Host names of ingress rules that begin with `*.`."""
    messages = [] if len(text) <= SUBDOMAIN_MAX else [max_length_error(SUBDOMAIN_MAX)]
    if not _wildcard(text):
        messages.append(regex_error(_WILDCARD_MESSAGE, _WILDCARD, ("*.example.com",)))
    return messages


def qualified_name(text: str) -> list[str]:
    """Keys of labels, annotations and resources: `name` or `dns.prefix/name`."""
    # The same few keys come with every object: to know them takes a tenth of the 2 us of a check.
    return [*_known_key(text)] if len(text) <= _KEY_MAX else _qualified_name(text)


_KEY_MAX = SUBDOMAIN_MAX + 1 + LABEL_MAX


@lru_cache(maxsize=2048)
def _known_key(text: str) -> Sequence[str]:
    return tuple(_qualified_name(text))


def _qualified_name(text: str) -> list[str]:
    messages: list[str] = []
    examples = ("MyName", "my.name", "123-abc")
    parts = text.split("/")
    if len(parts) > 2:
        return [
            "a qualified name "
            + regex_error(_QUALIFIED_MESSAGE, _QUALIFIED, examples)
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if len(parts) == 2:
        prefix = parts[0]
        faults = dns1123_subdomain(prefix) if prefix else ["must be non-empty"]
        messages += [f"prefix part {fault}" for fault in faults]
    last = parts[-1]
    if not last:
        messages.append("name part must be non-empty")
    elif len(last) > LABEL_MAX:
        messages.append(f"name part {max_length_error(LABEL_MAX)}")
    if not _qualified(last):
        messages.append(f"name part {regex_error(_QUALIFIED_MESSAGE, _QUALIFIED, examples)}")
    return messages


def label_value(text: str) -> list[str]:
    """Values of labels: empty, or at most 63 characters."""
    messages = [] if len(text) <= LABEL_MAX else [max_length_error(LABEL_MAX)]
    if not _label_value(text):
        examples = ("MyValue", "my_value", "12345")
        messages.append(regex_error(_LABEL_VALUE_MESSAGE, _LABEL_VALUE, examples))
    return messages


def port_name(text: str) -> list[str]:
    """Names of container ports (IANA service names): at most 15 characters with at least one letter."""
    messages = [] if len(text) <= 15 else ["must be no more than 15 characters"]
    if not _port_characters(text):
        messages.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _any_letter(text):
        messages.append("must contain at least one letter (a-z)")
    if "--" in text:
        messages.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        messages.append("must not begin or end with a hyphen")
    return messages


def config_map_key(text: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    messages = [] if len(text) <= SUBDOMAIN_MAX else [max_length_error(SUBDOMAIN_MAX)]
    if not _config_key(text):
        messages.append(regex_error(_CONFIG_KEY_MESSAGE, _CONFIG_KEY, ("key.name", "KEY_NAME", "key-name")))
    if text == ".":
        messages.append("must not be '.'")
    elif text == "..":
        messages.append("must not be '..'")
    elif text.startswith(".."):
        messages.append("must not start with '..'")
    return messages


def path_segment(text: str) -> list[str]:
    """Names that stand in a URL by themselves."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in text]


def domain_prefixed_path(text: str) -> list[str]:
    """`acme.io/foo`: what names a controller."""
    domain, _, path = text.partition("/")
    if not domain or not path:
        return ['must be a domain-prefixed path (such as "acme.io/foo")']
    messages = dns1123_subdomain(domain)
    if not _http_path(path):
        messages.append(regex_error("Invalid path", _HTTP_PATH))
    return messages


def c_identifier(text: str) -> list[str]:
    """Names a shell can use as a variable."""
    if _c_identifier(text):
        return []
    return [regex_error(_C_IDENTIFIER_MESSAGE, _C_IDENTIFIER, ("my_name", "MY_NAME", "MyName"))]


def generate_name(base: str) -> str:
    """`base` (cut to 58 characters) with five random characters that cannot spell words."""
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    return base[: _GENERATED_MAX - _SUFFIX_LENGTH] + suffix
