"""OpenML's documents: XML in, XML or JSON out. A document is a nested dictionary, as xmltodict gives them.

`@name` is an attribute, `#text` the text beside attributes, a list is an element that may occur several times, and None
is an element left out. Names carry no prefix: in XML all of them are in OpenML's namespace, in JSON none is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape, quoteattr

from metamed.exchange.server.refusals import Refused

NAMESPACE = "http://openml.org/openml"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def read_xml(content: bytes | str, root: str, code: int):
    """The root element of an uploaded document, an ElementTree Element; no DTD, no entities, no other root than `root`.

    Refuses with `code`, which is the one of the document's kind.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise Refused(code, f"no document type declaration or entity is allowed ({type(error).__name__})") from None
    except (ParseError, ValueError, LookupError) as error:
        raise Refused(code, f"not well-formed XML: {error}") from None
    if element.tag != f"{{{NAMESPACE}}}{root}":
        raise Refused(code, f"the root element is {element.tag!r}, expected {root} in the namespace {NAMESPACE}")
    return element


def local_name(element) -> str:
    """The name of an element in OpenML's namespace; one outside it keeps its braces, so that no rule knows it."""
    return element.tag.removeprefix(f"{{{NAMESPACE}}}") if isinstance(element.tag, str) else "a comment"


def as_xml(document: Mapping) -> str:
    """A document of one root as XML text."""
    ((root, content),) = document.items()
    return "".join(_elements(root, content, f' xmlns:oml="{NAMESPACE}"')) + "\n"


def _elements(name: str, content, attributes: str = "") -> Iterator[str]:
    if content is None:
        return
    if isinstance(content, list | tuple):
        for one in content:
            yield from _elements(name, one)
        return
    if not isinstance(content, Mapping):
        yield f"<oml:{name}{attributes}>{text(content)}</oml:{name}>\n"
        return
    attributes += "".join(f" {k[1:]}={quoteattr(_legal(v))}" for k, v in content.items() if k[0] == "@")
    inner = [part for key, value in content.items() if key[0] not in "@#" for part in _elements(key, value)]
    yield f"<oml:{name}{attributes}>{text(content.get('#text', ''))}"
    yield from ["\n", *inner] if inner else []
    yield f"</oml:{name}>\n"


def text(value) -> str:
    """A value as the text of an element."""
    return escape(_legal(value))


def _legal(value) -> str:
    return _ILLEGAL.sub("", str(value).lower() if isinstance(value, bool) else str(value))


def as_json(document: Mapping) -> str:
    """A document as JSON: every value is a string, attributes are keys, the text beside them is `value`."""
    return json.dumps(_plain(document))


def _plain(content):
    if isinstance(content, Mapping):
        return {k.lstrip("@") if k != "#text" else "value": _plain(v) for k, v in content.items() if v is not None}
    if isinstance(content, list | tuple):
        return [_plain(one) for one in content]
    return _legal(content)
