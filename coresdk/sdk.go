// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// SDK asks one sidecar. It is safe for concurrent use. Make it with New or
// FromEnv; any other, nil included, denies everything.
type SDK struct {
	conn    *grpc.ClientConn
	auth    coresdkv1.AuthServiceClient
	policy  coresdkv1.PolicyServiceClient
	config  Config
	tenant  *coresdkv1.TenantContext
	request *coresdkv1.RequestMetadata
	now     func() time.Time
}

// FromEnv returns an SDK as the environment says; the package comment lists
// the variables. It fails as New does, and for a CORESDK_FAIL_MODE other than
// closed. A service that gets an error must not serve.
func FromEnv() (*SDK, error) {
	c, err := ConfigFromEnv()
	if err != nil {
		return nil, err
	}
	return New(context.Background(), c) //nolint:forbidigo // the guide's signature has no context; New bounds itself
}

// New returns an SDK whose sidecar is connected and SERVING. It fails as Dial
// does: ErrUnavailable when there is no such sidecar within
// Config.ConnectTimeout, another error when the configuration is wrong or
// unsafe.
func New(ctx context.Context, c Config) (*SDK, error) {
	c, err := c.checked()
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, c)
	if err != nil {
		return nil, err
	}
	s := &SDK{
		conn:    conn,
		auth:    coresdkv1.NewAuthServiceClient(conn),
		policy:  coresdkv1.NewPolicyServiceClient(conn),
		config:  c,
		request: &coresdkv1.RequestMetadata{ServiceName: c.ServiceName},
		now:     time.Now,
	}
	if c.TenantID != "" {
		s.tenant = &coresdkv1.TenantContext{TenantId: c.TenantID}
	}
	return s, nil
}

// Close ends the connection. Calls under way, and all later ones, deny.
// Closing again does nothing.
func (s *SDK) Close() error {
	if !s.usable() {
		return nil
	}
	if err := s.conn.Close(); err != nil && status.Code(err) != codes.Canceled { // Canceled: closed before
		return fmt.Errorf("coresdk: closing the connection to the sidecar: %w", err)
	}
	return nil
}

func (s *SDK) usable() bool { return s != nil && s.conn != nil }

// ask makes one call within the deadline of every call. It reports
// ErrUnauthorized or ErrUnavailable when no answer came, and an answer
// otherwise: never neither.
func ask[Q, A any](ctx context.Context, s *SDK, name string,
	call func(context.Context, *Q, ...grpc.CallOption) (*A, error), q *Q,
) (*A, error) {
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	answer, err := call(bounded, q)
	if err != nil {
		return nil, failed(ctx, name, err)
	}
	if answer == nil {
		return nil, fmt.Errorf("%w: %s: no answer", ErrUnavailable, name)
	}
	return answer, nil
}
