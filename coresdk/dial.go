// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// maxMessage bounds what the sidecar can make us hold, and we it.
	maxMessage = 1 << 20
	// maxHeaders bounds the headers of an answer.
	maxHeaders = 64 << 10
)

// Dial returns a connection to the sidecar that is up: connected within
// Config.ConnectTimeout with the credentials and metadata of the
// configuration, and SERVING by its own word. It reports ErrUnavailable
// otherwise, and an error that names the setting when the configuration is
// wrong or would send tokens in the clear.
//
// A unary call on it without a deadline gets Config.Timeout; streams are the
// caller's to bound. Nothing is retried once the sidecar has seen it, and a
// call fails at once while the connection is down. Messages are at most 1 MiB.
func Dial(ctx context.Context, c Config) (*grpc.ClientConn, error) {
	c, err := c.checked()
	if err != nil {
		return nil, err
	}
	return dial(ctx, c)
}

func dial(ctx context.Context, c Config) (*grpc.ClientConn, error) {
	addr, err := parseAddress(c.Addr)
	if err != nil {
		return nil, err
	}
	creds, plain, err := c.transport(addr)
	if err != nil {
		return nil, err
	}
	// passthrough: names are resolved by our own dialer, which checks them, and
	// no service configuration is taken from DNS.
	conn, err := grpc.NewClient("passthrough:///"+addr.authority(), c.dialOptions(addr, creds, plain)...)
	if err != nil {
		return nil, fmt.Errorf("coresdk: preparing the connection to the sidecar: %w", err)
	}
	if err := checkServing(ctx, conn, c); err != nil {
		_ = conn.Close() // the reason why it is of no use is already known
		return nil, err
	}
	return conn, nil
}

func (c Config) dialOptions(addr address, creds credentials.TransportCredentials, plain bool) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(caller{name: c.ServiceName, token: c.ServiceToken}),
		grpc.WithContextDialer(addr.dialer(plain)),
		grpc.WithNoProxy(), // a proxy in the environment must not see tokens
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0), // keepalive watches the connection; idleness must not close it
		grpc.WithMaxHeaderListSize(maxHeaders),
		// Room for a full message, and no probing for how much more: on a way this
		// short the probes and grants were some tenth of the sidecar's work.
		grpc.WithStaticStreamWindowSize(1 << 20),
		grpc.WithStaticConnWindowSize(4 << 20),
		grpc.WithUserAgent("coresdk-go"),
		grpc.WithUnaryInterceptor(withDeadline(c.Timeout)),
		grpc.WithDefaultCallOptions(
			grpc.WaitForReady(false),
			grpc.MaxCallRecvMsgSize(maxMessage),
			grpc.MaxCallSendMsgSize(maxMessage),
		),
		// A stopped process keeps its sockets open; only the missing answer to
		// a ping tells. 10 s is the least that gRPC allows.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 2 * time.Second, PermitWithoutStream: true,
		}),
		// The default backs off to two minutes: too long for a process next door.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
	}
}

// checkServing waits for the connection and asks the sidecar's health.
// grpc.NewClient alone connects to nothing and so notices nothing.
func checkServing(ctx context.Context, conn *grpc.ClientConn, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(conn).
		Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("%w: connecting and asking its health: %s", ErrUnavailable, why(conn, err, c.ServiceToken))
	}
	if s := answer.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w: its health is %s, not SERVING", ErrUnavailable, s)
	}
	return nil
}

// why says what is known of a failed connection. The text of a status is
// shown only while there is no connection: it is then our own side's. A
// sidecar's text could repeat what we sent it.
func why(conn *grpc.ClientConn, err error, token Secret) string {
	st := status.Convert(err)
	if conn.GetState() == connectivity.Ready || st.Code() == codes.OK {
		return st.Code().String()
	}
	text := st.Message()
	if token != "" {
		text = strings.ReplaceAll(text, string(token), redacted)
	}
	return st.Code().String() + ": " + text
}

// withDeadline gives every unary call an end.
func withDeadline(d time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	}
}

// caller is the metadata of every call, streams included.
type caller struct {
	name  string
	token Secret
}

func (c caller) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	md := map[string]string{"x-service-name": c.name}
	if c.token != "" {
		md["x-service-token"] = string(c.token)
	}
	return md, nil
}

// RequireTransportSecurity is false because Config.transport has decided:
// what is plaintext here does not leave the machine.
func (c caller) RequireTransportSecurity() bool { return false }
