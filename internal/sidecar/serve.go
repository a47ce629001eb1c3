// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// Listen says where the sidecar listens and how it is protected there.
type Listen struct {
	// Addrs are host:port, or unix:///path.
	Addrs []string
	// TLSCert, TLSKey and TLSCA are PEM files for mutual TLS 1.3.
	TLSCert, TLSKey, TLSCA string
	// Group may use a unix socket beside the sidecar's own user: the API must
	// run as another user, or it could read the context key.
	Group string
	// Dev allows plaintext on loopback.
	Dev bool
}

// Server is the sidecar listening.
type Server struct {
	grpc      *grpc.Server
	health    *health.Server
	listeners []net.Listener
	log       *slog.Logger
}

// Listening opens the addresses. It refuses plaintext anywhere but on a unix
// socket, or on loopback in dev.
func (s *Service) Listening(ctx context.Context, l Listen) (*Server, error) {
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(1 << 20),
		grpc.StaticStreamWindowSize(1 << 20), // as coresdk.Dial has it
		grpc.StaticConnWindowSize(4 << 20),
		grpc.MaxConcurrentStreams(256),
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.recoverUnary),
		grpc.StreamInterceptor(s.recoverStream),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
	}
	mutual := l.TLSCert != "" || l.TLSKey != "" || l.TLSCA != ""
	if mutual {
		creds, err := mutualTLS(l)
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.Creds(creds))
	}
	out := &Server{grpc: grpc.NewServer(opts...), health: health.NewServer(), log: s.cfg.Log}
	for _, addr := range l.Addrs {
		ln, err := listen(ctx, addr, mutual, l)
		if err != nil {
			out.closeListeners()
			return nil, err
		}
		out.listeners = append(out.listeners, ln)
	}
	if len(out.listeners) == 0 {
		return nil, errors.New("the sidecar has no address to listen on")
	}
	coresdkv1.RegisterAuthServiceServer(out.grpc, s)
	coresdkv1.RegisterPolicyServiceServer(out.grpc, s)
	pb.RegisterGateServiceServer(out.grpc, s)
	healthpb.RegisterHealthServer(out.grpc, out.health)
	return out, nil
}

func listen(ctx context.Context, addr string, mutual bool, l Listen) (net.Listener, error) {
	var lc net.ListenConfig
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			_ = os.Remove(path) // a kill left it behind
		}
		old := syscall.Umask(0o177) // nobody else, not for a moment
		ln, err := lc.Listen(ctx, "unix", path)
		syscall.Umask(old)
		if err != nil {
			return nil, fmt.Errorf("sidecar address %s: %w", addr, err)
		}
		if err := shareWith(path, l.Group); err != nil {
			_ = ln.Close()
			return nil, fmt.Errorf("sidecar address %s: %w", addr, err)
		}
		return ln, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("sidecar address %s must be host:port or unix:///path", addr)
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	if !mutual && (!l.Dev || !loopback) {
		return nil, fmt.Errorf("sidecar address %s would be plaintext: set CORESDK_TLS_CERT, CORESDK_TLS_KEY and CORESDK_TLS_CA, or listen on unix:///path", addr)
	}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("sidecar address %s: %w", addr, err)
	}
	return ln, nil
}

// shareWith gives a group the use of the socket.
func shareWith(path, group string) error {
	if group == "" {
		return nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return fmt.Errorf("MEDIRECORD_SIDECAR_GROUP: no such group %s", group)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660) //nolint:gosec // the group is the point
}

func mutualTLS(l Listen) (credentials.TransportCredentials, error) {
	cert, err := tls.LoadX509KeyPair(l.TLSCert, l.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("sidecar certificate: %w", err)
	}
	pem, err := os.ReadFile(l.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("sidecar CA: %w", err)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("sidecar CA %s holds no certificate", l.TLSCA)
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert,
	}), nil
}

// Addrs returns where it listens.
func (s *Server) Addrs() []net.Addr {
	out := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.Addr()
	}
	return out
}

// Serve answers until Stop, and says SERVING meanwhile.
func (s *Server) Serve() error {
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	errs := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		go func() { errs <- s.grpc.Serve(l) }()
	}
	var first error
	for range s.listeners {
		if err := <-errs; err != nil && first == nil {
			first = err
			s.grpc.Stop()
		}
	}
	return first
}

// Stop says NOT_SERVING and ends: streams are cut, their questions refused.
func (s *Server) Stop() {
	s.health.Shutdown()
	s.grpc.Stop()
	s.closeListeners()
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
}

// A panic answers no, and the log says where without what.
func (s *Service) recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ctx, info.FullMethod, p)
		}
	}()
	if err := legible(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Service) recoverStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ss.Context(), info.FullMethod, p)
		}
	}()
	return next(srv, legibleStream{ss})
}

func (s *Service) panicked(ctx context.Context, method string, p any) error {
	s.cfg.Log.ErrorContext(ctx, "panic", slog.String("method", method), slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
	return status.Error(codes.Internal, "internal error")
}
