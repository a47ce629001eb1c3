// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"bytes"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// codec hands on a request that does not read as an empty message with a mark,
// for legible to refuse: gRPC itself would answer Internal, and a request that
// does not read is the asker's mistake.
type codec struct{ encoding.CodecV2 }

// unread is the mark: a field of no message.
var unread = protowire.AppendTag(nil, protowire.MaxValidNumber, protowire.StartGroupType)

// Unmarshal reads a message of the contract.
func (c codec) Unmarshal(b mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(b, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(unread)
	return nil
}

// legible refuses a request that did not read. An early client sends the
// tenant as a plain string; one that happens to read as a message of fields
// that nobody knows must not pass for a tenant.
func legible(m any) error {
	if p, ok := m.(proto.Message); ok && bytes.Equal(p.ProtoReflect().GetUnknown(), unread) {
		return status.Error(codes.InvalidArgument, "the request is not the message of this call")
	}
	if t, ok := m.(interface {
		GetTenant() *coresdkv1.TenantContext
	}); ok && len(t.GetTenant().ProtoReflect().GetUnknown()) > 0 {
		return status.Error(codes.InvalidArgument, "tenant is not a TenantContext message")
	}
	return nil
}

// legibleStream refuses the messages of a stream that do not read.
type legibleStream struct{ grpc.ServerStream }

// RecvMsg receives the next message.
func (s legibleStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return legible(m)
}
