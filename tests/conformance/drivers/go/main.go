// A driver on stubs that stock protoc has just made for Go. What it reads and writes is told in
// ../loop.py.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"time"

	kvblockv1 "kvblock/v1"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	timeout      = time.Minute
	lineBytesMax = 1 << 20
	session      = "kvblock.v1.KVBlockService/Session"
)

type call struct {
	Address  string
	Method   string
	Messages []json.RawMessage
	Linger   bool
}

type outcome struct {
	Answers  []json.RawMessage `json:"answers"`
	Code     string            `json:"code"`
	Details  string            `json:"details"`
	Trailers map[string]string `json:"trailers"`
}

// unary sends one request, given in JSON.
type unary func(context.Context, grpc.ClientConnInterface, json.RawMessage, ...grpc.CallOption) (proto.Message, error)

// of makes a unary from a method of a generated client.
func of[Client, Request any, Answer proto.Message, Pointer interface {
	*Request
	proto.Message
}](
	connect func(grpc.ClientConnInterface) Client,
	method func(Client, context.Context, Pointer, ...grpc.CallOption) (Answer, error),
) unary {
	return func(ctx context.Context, conn grpc.ClientConnInterface, text json.RawMessage, options ...grpc.CallOption) (proto.Message, error) {
		request := Pointer(new(Request))
		must(protojson.Unmarshal(text, request))
		return method(connect(conn), ctx, request, options...)
	}
}

func methods() map[string]unary {
	service, admin := kvblockv1.NewKVBlockServiceClient, kvblockv1.NewKVBlockAdminClient
	type serviceClient = kvblockv1.KVBlockServiceClient
	type adminClient = kvblockv1.KVBlockAdminClient
	return map[string]unary{
		"kvblock.v1.KVBlockService/Allocate":           of(service, serviceClient.Allocate),
		"kvblock.v1.KVBlockService/Free":               of(service, serviceClient.Free),
		"kvblock.v1.KVBlockService/FreeReturningCount": of(service, serviceClient.FreeReturningCount),
		"kvblock.v1.KVBlockService/GetBlockTable":      of(service, serviceClient.GetBlockTable),
		"kvblock.v1.KVBlockService/CanAllocate":        of(service, serviceClient.CanAllocate),
		"kvblock.v1.KVBlockService/Stats":              of(service, serviceClient.Stats),
		"kvblock.v1.KVBlockService/Step":               of(service, serviceClient.Step),
		"kvblock.v1.KVBlockService/AttachEngine":       of(service, serviceClient.AttachEngine),
		"kvblock.v1.KVBlockService/RenewLease":         of(service, serviceClient.RenewLease),
		"kvblock.v1.KVBlockService/DetachEngine":       of(service, serviceClient.DetachEngine),
		"kvblock.v1.KVBlockAdmin/ListPools":            of(admin, adminClient.ListPools),
		"kvblock.v1.KVBlockAdmin/CreatePool":           of(admin, adminClient.CreatePool),
		"kvblock.v1.KVBlockAdmin/DeletePool":           of(admin, adminClient.DeletePool),
		"kvblock.v1.KVBlockAdmin/ListEngines":          of(admin, adminClient.ListEngines),
		"kvblock.v1.KVBlockAdmin/ReclaimEngine":        of(admin, adminClient.ReclaimEngine),
		"kvblock.v1.KVBlockAdmin/ListBlocks":           of(admin, adminClient.ListBlocks),
		"kvblock.v1.KVBlockAdmin/ListSequences":        of(admin, adminClient.ListSequences),
		"kvblock.v1.KVBlockAdmin/Audit":                of(admin, adminClient.Audit),
		"kvblock.v1.KVBlockAdmin/Drain":                of(admin, adminClient.Drain),
	}
}

func main() {
	known := methods()
	connections := map[string]*grpc.ClientConn{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	results := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked call
		must(json.Unmarshal(lines.Bytes(), &asked))
		conn := connections[asked.Address]
		if conn == nil {
			var err error
			conn, err = grpc.NewClient(asked.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			must(err)
			connections[asked.Address] = conn
		}
		must(results.Encode(carryOut(known, conn, asked)))
	}
	must(lines.Err())
}

func carryOut(known map[string]unary, conn *grpc.ClientConn, asked call) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if asked.Method == session {
		answers, trailers, err := converse(ctx, kvblockv1.NewKVBlockServiceClient(conn), asked)
		return report(answers, trailers, err)
	}
	var trailers metadata.MD
	answer, err := known[asked.Method](ctx, conn, asked.Messages[0], grpc.Trailer(&trailers))
	if err != nil {
		return report(nil, trailers, err)
	}
	return report([]proto.Message{answer}, trailers, nil)
}

// converse sends each message when the one before it was answered.
func converse(ctx context.Context, client kvblockv1.KVBlockServiceClient, asked call) (answers []proto.Message, trailers metadata.MD, err error) {
	stream, err := client.Session(ctx)
	if err != nil {
		return nil, nil, err
	}
	for next := 0; ; next++ {
		if next < len(asked.Messages) {
			request := &kvblockv1.SessionRequest{}
			must(protojson.Unmarshal(asked.Messages[next], request))
			// Where the stream is over, receiving tells why.
			if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
				return answers, stream.Trailer(), err
			}
		} else if !asked.Linger {
			must(stream.CloseSend())
		}
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answers, stream.Trailer(), nil
		}
		if err != nil {
			return answers, stream.Trailer(), err
		}
		answers = append(answers, answer)
	}
}

func report(answers []proto.Message, trailers metadata.MD, err error) outcome {
	found := status.Convert(err)
	result := outcome{Answers: []json.RawMessage{}, Code: code.Code(found.Code()).String(), Trailers: map[string]string{}}
	for name, texts := range trailers {
		if !strings.HasSuffix(name, "-bin") {
			result.Trailers[name] = texts[0]
		}
	}
	for _, answer := range answers {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(answer)
		must(err)
		result.Answers = append(result.Answers, text)
	}
	if len(found.Details()) > 0 {
		bytes, err := proto.Marshal(found.Proto())
		must(err)
		result.Details = base64.StdEncoding.EncodeToString(bytes)
	}
	return result
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
