// SPDX-License-Identifier: Apache-2.0

// Package coresdktest serves the CoreSDK contract inside a test, over a real
// gRPC server, so that a service and its SDK can be tried whole. It verifies
// no signature: its answers are what the test says. It is never a sidecar for
// anything but tests.
package coresdktest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// Answers is what a Sidecar says. A function that is nil answers no.
type Answers struct {
	ValidateToken func(context.Context, *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error)
	Authorize     func(context.Context, *coresdkv1.AuthorizeRequest) (*coresdkv1.AuthorizeResponse, error)
	RevokeToken   func(context.Context, *coresdkv1.RevokeTokenRequest) (*coresdkv1.RevokeTokenResponse, error)
	Evaluate      func(context.Context, *coresdkv1.PolicyEvaluateRequest) (*coresdkv1.PolicyEvaluateResponse, error)
}

// Tokens returns answers that know these tokens, and no other, as valid for
// an hour.
func Tokens(tokens map[string]*coresdkv1.ValidateTokenResponse) Answers {
	return Answers{ValidateToken: func(_ context.Context, q *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
		known, ok := tokens[q.GetToken()]
		if !ok {
			return &coresdkv1.ValidateTokenResponse{}, nil
		}
		return &coresdkv1.ValidateTokenResponse{
			Valid: true, Subject: known.GetSubject(), Roles: known.GetRoles(), Claims: known.GetClaims(),
			ExpiresAt: time.Now().Add(time.Hour).Unix(),
		}, nil
	}}
}

// Options says how a Sidecar is reached. The zero value is a unix socket.
type Options struct {
	// Addr is where to listen: unix:///path, or host:port with port 0 for a
	// free one. "" is a new unix socket.
	Addr string
	TLS  *tls.Config // nil: plaintext
	// NotServing makes health say so from the start.
	NotServing bool
}

// Sidecar is a running server of the contract.
type Sidecar struct {
	// Addr is what CORESDK_SIDECAR_ADDR wants.
	Addr string

	server *grpc.Server
	health *health.Server
	served chan error
	dir    string

	mu   sync.Mutex
	seen metadata.MD
}

// Serve starts a sidecar that gives the answers. Close it when done.
func Serve(answers Answers, o Options) (*Sidecar, error) {
	s := &Sidecar{health: health.NewServer(), served: make(chan error, 1)}
	l, err := s.listen(o.Addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("coresdktest: listening: %w", err), s.clear())
	}
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	s.server = grpc.NewServer(
		grpc.Creds(creds), grpc.UnaryInterceptor(s.note),
		// The SDK pings every 10 s, idle or not; gRPC's default would drop it for that.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	coresdkv1.RegisterAuthServiceServer(s.server, authService{answers: answers})
	coresdkv1.RegisterPolicyServiceServer(s.server, policyService{answers: answers})
	grpc_health_v1.RegisterHealthServer(s.server, s.health)
	if o.NotServing {
		s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}
	go func() { s.served <- s.server.Serve(l) }()
	return s, nil
}

func (s *Sidecar) listen(addr string) (net.Listener, error) {
	if addr == "" {
		// Not a test's own directory: its path can be longer than a socket's may be.
		dir, err := os.MkdirTemp("", "coresdktest")
		if err != nil {
			return nil, err
		}
		s.dir = dir
		addr = "unix://" + filepath.Join(dir, "s")
	}
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		s.Addr = addr
		return net.Listen("unix", path)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s.Addr = l.Addr().String()
	return l, nil
}

// Close kills the sidecar: calls under way break off, later ones are refused.
func (s *Sidecar) Close() error {
	s.server.Stop()
	err := <-s.served
	s.served <- nil                            // closing again finds it closed
	if errors.Is(err, grpc.ErrServerStopped) { // closed before it began
		err = nil
	}
	return errors.Join(err, s.clear())
}

func (s *Sidecar) clear() error {
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// Metadata returns what came with the latest call.
func (s *Sidecar) Metadata() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Copy()
}

func (s *Sidecar) note(ctx context.Context, q any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	s.seen = md
	s.mu.Unlock()
	return handle(ctx, q)
}

type authService struct {
	coresdkv1.UnimplementedAuthServiceServer
	answers Answers
}

func (s authService) ValidateToken(ctx context.Context, q *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
	return answer(ctx, s.answers.ValidateToken, q)
}

func (s authService) Authorize(ctx context.Context, q *coresdkv1.AuthorizeRequest) (*coresdkv1.AuthorizeResponse, error) {
	return answer(ctx, s.answers.Authorize, q)
}

func (s authService) RevokeToken(ctx context.Context, q *coresdkv1.RevokeTokenRequest) (*coresdkv1.RevokeTokenResponse, error) {
	return answer(ctx, s.answers.RevokeToken, q)
}

type policyService struct {
	coresdkv1.UnimplementedPolicyServiceServer
	answers Answers
}

func (s policyService) Evaluate(ctx context.Context, q *coresdkv1.PolicyEvaluateRequest) (*coresdkv1.PolicyEvaluateResponse, error) {
	return answer(ctx, s.answers.Evaluate, q)
}

// answer asks the test, or says no: the zero answer of every call denies.
func answer[Q, A any](ctx context.Context, say func(context.Context, *Q) (*A, error), q *Q) (*A, error) {
	if say == nil {
		return new(A), nil
	}
	return say(ctx, q)
}
