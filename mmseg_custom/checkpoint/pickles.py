"""Bounds of a pickle, checked before it is read.

A pickle of a few bytes can ask its reader for any amount of memory or time: by a number in its memo
(the reader allocates all numbers below), by lengths, by a ``bytearray`` of a given size, or by a
dict's key of tuples that hold each other twice, 30 levels deep, whose hash takes 2^30 steps. What a
file writes for tensors and metadata does none of that.
"""
import pickletools

KEY_PARTS = 100  # most parts of a dict's key; torch's own have 6
LEAF, MARK, PUT, GET, CHANGE, OTHER, STOP, FRAME, DUP, POP = range(10)  # kinds of operations
_KINDS = {'MARK': MARK, 'PUT': PUT, 'BINPUT': PUT, 'LONG_BINPUT': PUT, 'MEMOIZE': PUT, 'GET': GET,
          'BINGET': GET, 'LONG_BINGET': GET, 'STOP': STOP, 'FRAME': FRAME, 'DUP': DUP, 'POP': POP,
          'APPEND': CHANGE, 'APPENDS': CHANGE, 'SETITEM': CHANGE, 'SETITEMS': CHANGE,
          'ADDITEMS': CHANGE, 'BUILD': CHANGE, 'EMPTY_DICT': OTHER, 'EMPTY_LIST': OTHER,
          'EMPTY_SET': OTHER}
_KEYS = {'SETITEM': slice(1, 2), 'SETITEMS': slice(1, None, 2), 'DICT': slice(0, None, 2),
         'ADDITEMS': slice(1, None), 'FROZENSET': slice(0, None)}
_LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}


def _table() -> list[tuple | None]:
    """Returns for each byte: (kind, size of the argument, to a mark, pops, pushes, keys, name)."""
    table: list[tuple | None] = [None] * 256
    for op in pickletools.opcodes:
        before = op.stack_before
        to_mark = pickletools.markobject in before
        pops = sum(kind not in (pickletools.markobject, pickletools.stackslice) for kind in before)
        pushes = len(op.stack_after)
        kind = _KINDS.get(op.name, LEAF if not before and pushes == 1 else OTHER)
        table[ord(op.code)] = (kind, op.arg.n if op.arg else 0, to_mark, pops, pushes,
                               _KEYS.get(op.name), op.name)
    return table


_OPS = _table()


def check_pickle(data: bytes) -> int:
    """Checks that reading a pickle takes time and memory in proportion to its own bytes.

    The stack of the reader is followed, with the number of parts in the place of each object.

    Args:
        data: Content of the pickle; more may follow.

    Returns:
        Bytes of the pickle.

    Raises:
        ValueError: If it is not so, or if the pickle is cut short or damaged.
    """
    stack: list[list[int]] = []  # one number for each object, in a list since objects may grow
    marks: list[int] = []
    memo: dict[int, list[int]] = {}
    end, leaf = 0, [1]
    try:
        while True:
            start = end + 1
            kind, size, to_mark, pops, pushes, keys, name = _OPS[data[end]] or _unknown(data, end)
            end = start + size if size >= 0 else _end_of_argument(data, start, size)
            if kind == LEAF:
                if size < 0:
                    _check_text(data, start, end)
                stack.append(leaf)
            elif kind == PUT:
                number = len(memo) if name == 'MEMOIZE' else _number(data, start, end, size)
                if not 0 <= number <= len(data):
                    raise ValueError(f'object number {number} in {len(data)} bytes')
                memo[number] = stack[-1]
            elif kind == GET:
                stack.append(memo[_number(data, start, end, size)])
            elif kind == MARK:
                marks.append(len(stack))
            elif kind in (OTHER, CHANGE):
                first = (marks.pop() if to_mark else len(stack)) - pops
                if first < 0:
                    raise IndexError
                _combine(stack, first, kind == CHANGE, pushes, keys)
            elif kind == DUP:
                stack.append(stack[-1])
            elif kind == POP:
                if marks and marks[-1] == len(stack):
                    marks.pop()
                else:
                    stack.pop()
            elif kind == FRAME and int.from_bytes(data[start:end], 'little') > len(data) - end:
                raise ValueError('a frame is longer than the file')
            elif kind == STOP:
                return end
    except (IndexError, KeyError) as error:
        raise ValueError(f'it is cut short or damaged at byte {min(end, len(data))}') from error


def _combine(stack: list[list[int]], first: int, changes: bool, pushes: int,
             keys: slice | None) -> None:
    """Replaces the top objects of the stack by the object that is made of them.

    Args:
        stack: Stack, with the number of parts of each object.
        first: Place of the first object.
        changes: Whether the others are put into the first, and no new object is made.
        pushes: Number of objects that are made, 0 or 1.
        keys: Which of the objects become keys of a dict or items of a set.

    Raises:
        ValueError: If such a key has too many parts.
    """
    items = stack[first:]
    del stack[first:]
    if keys is not None and any(key[0] > KEY_PARTS for key in items[keys]):
        raise ValueError(f"a dict's key has more than {KEY_PARTS} parts")
    parts = 0
    for item in items:
        parts += item[0]
    if changes:
        stack.append(items[0])
        items[0][0] = parts
    elif pushes:
        stack.append([1 + parts])


def _unknown(data: bytes, position: int) -> tuple:
    raise ValueError(f'there is no operation {data[position]:#04x} (byte {position})')


def _end_of_argument(data: bytes, start: int, size: int) -> int:
    """Returns where an argument of any length ends."""
    if size == pickletools.UP_TO_NEWLINE:
        end = data.index(b'\n', start) + 1
        return data.index(b'\n', end) + 1 if data[start - 1] in b'ci' else end  # two lines
    width = _LENGTHS[size]
    end = start + width + int.from_bytes(data[start:start + width], 'little')
    if end > len(data):
        raise ValueError(f'{end - start} bytes are asked for where {len(data) - start} are left')
    return end


def _check_text(data: bytes, start: int, end: int) -> None:
    """Refuses ``bytearray``, which allocates as many bytes as its argument says."""
    if end - start < 50 and b'bytearray' in data[start:end] and (
            data[start:end].strip(b'\n').endswith(b'bytearray')):
        raise ValueError('it asks for bytearray')


def _number(data: bytes, start: int, end: int, size: int) -> int:
    """Returns the number of an object in the memo."""
    return int(data[start:end]) if size < 0 else int.from_bytes(data[start:end], 'little')
