"""As much of grpcurl as the documents use, over server reflection: a call with JSON in and out.

`grpcurl.py -plaintext [-d JSON] ADDRESS SERVICE/METHOD` prints the answer as grpcurl does.
"""

import argparse

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", default="{}")
    parser.add_argument("address")
    parser.add_argument("method")
    asked = parser.parse_args()
    service, _, name = asked.method.partition("/")
    with grpc.insecure_channel(asked.address) as channel:
        types = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = types.FindServiceByName(service).methods_by_name[name]
        request = json_format.Parse(asked.d, GetMessageClass(method.input_type)())
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{asked.method}")
        answered = call(request.SerializeToString(), timeout=30)
        answer = GetMessageClass(method.output_type).FromString(answered)
    print(json_format.MessageToJson(answer, indent=2, preserving_proto_field_name=True))


if __name__ == "__main__":
    main()
