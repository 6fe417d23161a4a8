"""The protobuf wire format, as far as our ONNX files use it: varints and length-delimited fields.

Reading is bounded: no value is copied or allocated before its length is known to lie in the message.
Specification: https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator, Mapping

from .errors import CocError

MAX_FIELDS = 1 << 20
"""A message with more fields is refused; the largest models have some thousands."""

VARINT, LENGTH_DELIMITED = 0, 2

Value = int | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Each (field number, value) of a message in file order; CocError where it is malformed."""
    position = 0
    for _ in range(MAX_FIELDS):
        if position == len(message):
            return
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (VARINT, LENGTH_DELIMITED):
            raise CocError(f"field {number} has wire type {wire_type}, which ONNX models do not use here")
        value, position = _varint(message, position)
        if wire_type == VARINT:
            yield number, value
            continue
        if value > len(message) - position:
            raise CocError(f"field {number} needs {value} bytes, {len(message) - position} are left")
        yield number, message[position : position + value]
        position += value
    raise CocError(f"a message has more than {MAX_FIELDS} fields")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise CocError("a number is cut off at the end")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position
    raise CocError("a number is longer than 64 bits")


class Message:
    """A message whose fields all appear in `schema` (number -> int, or bytes for length-delimited)."""

    def __init__(self, data: memoryview, schema: Mapping[int, type]) -> None:
        self._values: dict[int, list[Value]] = {number: [] for number in schema}
        for number, value in fields(data):
            if number not in schema or isinstance(value, int) != (schema[number] is int):
                raise CocError(f"field {number} is not one that coc-deploy writes here")
            self._values[number].append(value)

    def numbers(self, number: int) -> list[int]:
        return [value for value in self._values[number] if isinstance(value, int)]

    def parts(self, number: int) -> list[memoryview]:
        return [value for value in self._values[number] if isinstance(value, memoryview)]

    def part(self, number: int) -> memoryview:
        """The only value of a field; absent means empty."""
        values = self.parts(number)
        if len(values) > 1:
            raise CocError(f"field {number} appears {len(values)} times")
        return values[0] if values else memoryview(b"")

    def number(self, number: int) -> int:
        """The only value of a field; absent means 0."""
        values = self.numbers(number)
        if len(values) > 1:
            raise CocError(f"field {number} appears {len(values)} times")
        return values[0] if values else 0

    def text(self, number: int) -> str:
        return text(self.part(number))

    def texts(self, number: int) -> list[str]:
        return [text(value) for value in self.parts(number)]


def text(data: memoryview) -> str:
    """UTF-8 bytes as a string of printable characters."""
    try:
        result = str(data, "utf-8")
    except UnicodeDecodeError:
        raise CocError("a name is not UTF-8 text") from None
    if not result.isprintable():
        raise CocError("a name holds unprintable characters")
    return result


def encode_varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def encode(number: int, value: int | bytes | memoryview | str) -> bytes:
    """One field: integers as varints, everything else length-delimited."""
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return encode_varint(number << 3 | LENGTH_DELIMITED) + encode_varint(len(data)) + data
