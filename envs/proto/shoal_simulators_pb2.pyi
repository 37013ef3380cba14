from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNSPECIFIED: _ClassVar[Outcome]
    TERMINATED: _ClassVar[Outcome]
    TRUNCATED: _ClassVar[Outcome]
UNSPECIFIED: Outcome
TERMINATED: Outcome
TRUNCATED: Outcome

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data", "numbers")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    numbers: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ..., numbers: _Optional[_Iterable[float]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("array", "parts", "items")
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    array: Array
    parts: Parts
    items: Items
    def __init__(self, array: _Optional[_Union[Array, _Mapping]] = ..., parts: _Optional[_Union[Parts, _Mapping]] = ..., items: _Optional[_Union[Items, _Mapping]] = ...) -> None: ...

class Parts(_message.Message):
    __slots__ = ("parts",)
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.MessageMap[str, Value]
    def __init__(self, parts: _Optional[_Mapping[str, Value]] = ...) -> None: ...

class Items(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, items: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = ("protocol", "observation_space", "action_space", "explore")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    observation_space: str
    action_space: str
    explore: bool
    def __init__(self, protocol: _Optional[int] = ..., observation_space: _Optional[str] = ..., action_space: _Optional[str] = ..., explore: _Optional[bool] = ...) -> None: ...

class StartReply(_message.Message):
    __slots__ = ("session", "observation_space", "action_space")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_SPACE_FIELD_NUMBER: _ClassVar[int]
    ACTION_SPACE_FIELD_NUMBER: _ClassVar[int]
    session: str
    observation_space: str
    action_space: str
    def __init__(self, session: _Optional[str] = ..., observation_space: _Optional[str] = ..., action_space: _Optional[str] = ...) -> None: ...

class ActRequest(_message.Message):
    __slots__ = ("session", "step", "reward", "observation")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    session: str
    step: int
    reward: float
    observation: Value
    def __init__(self, session: _Optional[str] = ..., step: _Optional[int] = ..., reward: _Optional[float] = ..., observation: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class ActReply(_message.Message):
    __slots__ = ("action", "version")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    action: Value
    version: int
    def __init__(self, action: _Optional[_Union[Value, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("session", "step", "reward", "observation", "action")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    session: str
    step: int
    reward: float
    observation: Value
    action: Value
    def __init__(self, session: _Optional[str] = ..., step: _Optional[int] = ..., reward: _Optional[float] = ..., observation: _Optional[_Union[Value, _Mapping]] = ..., action: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class LogReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("session", "step", "reward", "observation", "outcome")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    OBSERVATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    session: str
    step: int
    reward: float
    observation: Value
    outcome: Outcome
    def __init__(self, session: _Optional[str] = ..., step: _Optional[int] = ..., reward: _Optional[float] = ..., observation: _Optional[_Union[Value, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, str]] = ...) -> None: ...

class EndReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
