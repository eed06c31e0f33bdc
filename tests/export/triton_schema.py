"""Triton's model configuration as far as a deployment of ours may use it, for a strict parser.

Protobuf's text format is checked by field names and types, which are copied from
``protobuf/model_config.proto`` of triton-inference-server/common; a name that is not here is an
error. :func:`message_type` prefers the original, where Triton's client is installed.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

#: Message → field → (number, type, repeated); a type with a capital is a message or an enumeration.
MESSAGES = {
    "ModelConfig": {
        "name": (1, "string", False),
        "platform": (2, "string", False),
        "backend": (17, "string", False),
        "max_batch_size": (4, "int32", False),
        "input": (5, "ModelInput", True),
        "output": (6, "ModelOutput", True),
        "dynamic_batching": (11, "ModelDynamicBatching", False),
        "instance_group": (7, "ModelInstanceGroup", True),
        "default_model_filename": (8, "string", False),
        "parameters": (14, "Parameter", True),
    },
    "ModelInput": {
        "name": (1, "string", False),
        "data_type": (2, "DataType", False),
        "dims": (4, "int64", True),
    },
    "ModelOutput": {
        "name": (1, "string", False),
        "data_type": (2, "DataType", False),
        "dims": (3, "int64", True),
    },
    "ModelDynamicBatching": {
        "preferred_batch_size": (1, "int32", True),
        "max_queue_delay_microseconds": (2, "uint64", False),
    },
    "ModelInstanceGroup": {"count": (2, "int32", False), "gpus": (3, "int32", True)},
    "ModelParameter": {"string_value": (1, "string", False)},
    # A map is a repeated message of key and value.
    "Parameter": {"key": (1, "string", False), "value": (2, "ModelParameter", False)},
}
DATA_TYPES = (
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8",
    "TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING",
    "TYPE_BF16",
)  # fmt: skip


def message_type() -> Any:
    """Return the class of Triton's own ``ModelConfig``, or of the part of it above."""
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError:
        return _own()
    return model_config_pb2.ModelConfig


def parse(text: str) -> Any:
    """Parse a ``config.pbtxt``; unknown names and wrong types raise ``text_format.ParseError``."""
    return text_format.Parse(text, message_type()())


def data_type(field: Any) -> str:
    """Return the name of a tensor's data type."""
    return str(field.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[field.data_type].name)


def parameters(config: Any) -> dict[str, str]:
    """Return the configuration's parameters."""
    found = config.parameters
    if hasattr(found, "items"):
        return {key: value.string_value for key, value in found.items()}
    return {entry.key: entry.value.string_value for entry in found}


def _own() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    values = file.enum_type.add(name="DataType")
    for number, name in enumerate(DATA_TYPES):
        values.value.add(name=name, number=number)
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type = kinds.TYPE_ENUM if kind == "DataType" else kinds.TYPE_MESSAGE
                field.type_name = f".inference.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
