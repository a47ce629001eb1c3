// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

func TestNewRefusesASidecarThatIsNotThere(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]string{
		"a closed port":              closedPort(t),
		"no socket":                  "unix://" + filepath.Join(t.TempDir(), "s"),
		"a port that never answers":  silentPort(t),
		"a name that does not exist": "sidecar.invalid:50051",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := coresdk.Config{Addr: addr, Dev: true, ConnectTimeout: 300 * time.Millisecond, ServiceToken: "s3cret"}
			if strings.Contains(addr, "invalid") {
				pki := newPKI(t)
				c.TLSCert, c.TLSKey, c.TLSCA = pki.client.cert, pki.client.key, pki.ca
			}
			began := time.Now()
			sdk, err := coresdk.New(t.Context(), c)
			refused(t, sdk, err, "")
			if took := time.Since(began); took > patience { // it would try for ever
				t.Errorf("it took %v to notice", took)
			}
		})
	}
}

func TestNewSaysWhyThereIsNoConnection(t *testing.T) {
	t.Parallel()
	// Long enough for one attempt to have failed, which is what it tells of.
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: closedPort(t), Dev: true, ConnectTimeout: 5 * time.Second})
	refused(t, sdk, err, "connection refused")
}

func TestNewRefusesASidecarThatDoesNotServe(t *testing.T) {
	t.Parallel()
	s := serve(t, saying(yes()), coresdktest.Options{NotServing: true})
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: s.Addr, ConnectTimeout: patience})
	refused(t, sdk, err, "NOT_SERVING")
}

func TestNewRefusesASidecarWithoutHealth(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	server := grpc.NewServer() // no health service
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: l.Addr().String(), Dev: true, ConnectTimeout: patience})
	refused(t, sdk, err, "Unimplemented")
}

func TestNewDoesNotRepeatWhatTheSidecarSays(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, echo{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: l.Addr().String(), Dev: true, ServiceToken: "s3cret", ConnectTimeout: patience})
	refused(t, sdk, err, "Unknown")
}

// echo is a health service that sends back what it was trusted with.
type echo struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (echo) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	return nil, errors.New("you sent s3cret")
}

func TestNewWaitsForASidecarThatComesUpLate(t *testing.T) {
	t.Parallel()
	s := serve(t, saying(yes()), coresdktest.Options{Addr: loopback})
	noError(t, s.Close()) // its address is known, and nobody is there
	done := make(chan error, 1)
	go func() {
		sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: s.Addr, Dev: true, ConnectTimeout: patience})
		done <- errors.Join(err, sdk.Close())
	}()
	// Whether its first attempt has failed by now or not: it must get there.
	serve(t, saying(yes()), coresdktest.Options{Addr: s.Addr})
	noError(t, <-done)
}

func TestNewStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sdk, err := coresdk.New(ctx, coresdk.Config{Addr: silentPort(t), Dev: true, ConnectTimeout: time.Hour})
	refused(t, sdk, err, "")
}

func TestASidecarThatDiesLaterDeniesAndOneThatReturnsAnswers(t *testing.T) {
	t.Parallel()
	s := serve(t, saying(yes()), coresdktest.Options{Addr: loopback})
	sdk := connect(t, coresdk.Config{Addr: s.Addr, Dev: true})
	_, err := sdk.Authorize(t.Context(), token)
	noError(t, err)
	noError(t, s.Close())
	for range 3 {
		c, err := sdk.Authorize(t.Context(), token)
		denied(t, c, err, coresdk.ErrUnavailable)
	}
	serve(t, saying(yes()), coresdktest.Options{Addr: s.Addr})
	eventually(t, sdk)
}

func TestACallUnderWayBreaksOffWithItsSidecar(t *testing.T) {
	t.Parallel()
	under := make(chan struct{})
	s := serve(t, coresdktest.Answers{ValidateToken: func(ctx context.Context, _ *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
		close(under)
		<-ctx.Done()
		return yes(), nil
	}}, coresdktest.Options{})
	sdk := connect(t, coresdk.Config{Addr: s.Addr, Timeout: time.Hour})
	go func() { <-under; _ = s.Close() }()
	c, err := sdk.Authorize(t.Context(), token)
	denied(t, c, err, coresdk.ErrUnavailable)
}

func TestASidecarThatNeverAnswersIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	hung := coresdktest.Answers{ValidateToken: func(context.Context, *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
		<-over
		return yes(), nil // too late
	}}
	t.Run("beyond the timeout", func(t *testing.T) {
		t.Parallel()
		sdk := connect(t, coresdk.Config{Addr: serve(t, hung, coresdktest.Options{}).Addr, Timeout: 100 * time.Millisecond})
		c, err := sdk.Authorize(t.Context(), token)
		denied(t, c, err, coresdk.ErrUnavailable)
	})
	t.Run("beyond the timeout, by a caller with more patience", func(t *testing.T) {
		t.Parallel()
		sdk := connect(t, coresdk.Config{Addr: serve(t, hung, coresdktest.Options{}).Addr, Timeout: 100 * time.Millisecond})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c, err := sdk.Authorize(ctx, token)
		denied(t, c, err, coresdk.ErrUnavailable)
	})
	t.Run("beyond the caller's patience", func(t *testing.T) {
		t.Parallel()
		sdk := connect(t, coresdk.Config{Addr: serve(t, hung, coresdktest.Options{}).Addr, Timeout: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		c, err := sdk.Authorize(ctx, token)
		denied(t, c, err, coresdk.ErrUnavailable)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not say that the deadline passed", err)
		}
	})
	t.Run("after the SDK is closed", func(t *testing.T) {
		t.Parallel()
		sdk := connect(t, coresdk.Config{Addr: serve(t, hung, coresdktest.Options{}).Addr, Timeout: time.Hour})
		noError(t, sdk.Close())
		noError(t, sdk.Close())
		c, err := sdk.Authorize(t.Context(), token)
		denied(t, c, err, coresdk.ErrUnavailable)
	})
	t.Run("by a call on a dialled connection without a deadline", func(t *testing.T) {
		t.Parallel()
		conn, err := coresdk.Dial(t.Context(), coresdk.Config{Addr: serve(t, hung, coresdktest.Options{}).Addr, Timeout: 100 * time.Millisecond})
		noError(t, err)
		defer func() { noError(t, conn.Close()) }()
		_, err = coresdkv1.NewAuthServiceClient(conn).ValidateToken(t.Context(), &coresdkv1.ValidateTokenRequest{Token: token})
		if err == nil {
			t.Error("an answer came from a sidecar that gives none")
		}
	})
}

// The real thing: SIGSTOP keeps sockets open and answers nothing.
func TestAStoppedSidecarDeniesAndAContinuedOneAnswers(t *testing.T) {
	t.Parallel()
	process, addr := process(t)
	sdk := connect(t, coresdk.Config{Addr: addr, Timeout: time.Second})
	eventually(t, sdk)

	stop(t, process)
	for range 2 {
		began := time.Now()
		c, err := sdk.Authorize(t.Context(), token)
		denied(t, c, err, coresdk.ErrUnavailable)
		if took := time.Since(began); took > patience { // it is stopped: without the timeout it would be for ever
			t.Errorf("the refusal took %v", took)
		}
	}
	noError(t, process.Signal(syscall.SIGCONT))
	eventually(t, sdk)
}

func TestKeepaliveNoticesAStoppedSidecar(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("gRPC pings every 10 s at most")
	}
	process, addr := process(t)
	conn, err := coresdk.Dial(t.Context(), coresdk.Config{Addr: addr})
	noError(t, err)
	defer func() { noError(t, conn.Close()) }()
	stop(t, process)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	if !conn.WaitForStateChange(ctx, connectivity.Ready) {
		t.Error("minutes later the connection still counts as ready")
	}
}

// stop stops the process, and continues it at the end so that it can leave.
func stop(t *testing.T, p *os.Process) {
	t.Helper()
	noError(t, p.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = p.Signal(syscall.SIGCONT) })
	var status syscall.WaitStatus // the signal is not the stop
	_, err := syscall.Wait4(p.Pid, &status, syscall.WUNTRACED, nil)
	noError(t, err)
	if !status.Stopped() {
		t.Fatalf("it did not stop: %v", status)
	}
}

// eventually asks until the sidecar answers.
func eventually(t *testing.T, sdk *coresdk.SDK) {
	t.Helper()
	deadline := time.Now().Add(2 * patience)
	for {
		if _, err := sdk.Authorize(t.Context(), token); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("still: %v", err)
		}
	}
}

func TestAHugeAnswerIsNotRead(t *testing.T) {
	t.Parallel()
	huge := yes()
	huge.Claims["x"] = strings.Repeat("x", 1<<20)
	c, err := asking(t, saying(huge)).Authorize(t.Context(), token)
	denied(t, c, err, coresdk.ErrUnavailable)

	large := yes()
	large.Claims["x"] = strings.Repeat("x", 1<<20-1000)
	_, err = asking(t, saying(large)).Authorize(t.Context(), token)
	noError(t, err)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config coresdk.Config
		says   string
	}{
		"the zero value":                      {coresdk.Config{}, "plaintext"},
		"plaintext to loopback":               {coresdk.Config{Addr: "127.0.0.1:50051"}, "plaintext"},
		"plaintext to another machine in dev": {coresdk.Config{Addr: "192.0.2.1:50051", Dev: true}, "plaintext"},
		"plaintext to a name in dev":          {coresdk.Config{Addr: "sidecar:50051", Dev: true}, "plaintext"},
		"plaintext to everybody in dev":       {coresdk.Config{Addr: "0.0.0.0:50051", Dev: true}, "plaintext"},
		"a name like localhost":               {coresdk.Config{Addr: "localhost.example.org:50051", Dev: true}, "plaintext"},
		"a URL":                               {coresdk.Config{Addr: "https://user:s3cret@sidecar:50051"}, "host:port"},
		"no port":                             {coresdk.Config{Addr: "sidecar"}, "host:port"},
		"port zero":                           {coresdk.Config{Addr: "localhost:0"}, "host:port"},
		"a port beyond":                       {coresdk.Config{Addr: "localhost:65536"}, "host:port"},
		"a named port":                        {coresdk.Config{Addr: "localhost:grpc"}, "host:port"},
		"no host":                             {coresdk.Config{Addr: ":50051"}, "host:port"},
		"a relative socket":                   {coresdk.Config{Addr: "unix://run/s"}, "host:port"},
		"no socket":                           {coresdk.Config{Addr: "unix:///"}, "host:port"},
		"an abstract socket":                  {coresdk.Config{Addr: "unix-abstract:s"}, "host:port"},
		"another scheme of gRPC":              {coresdk.Config{Addr: "dns:///localhost:50051"}, "host:port"},
		"no certificate":                      {coresdk.Config{TLSKey: "k", TLSCA: "a"}, "not set: CORESDK_TLS_CERT (Config.TLSCert)"},
		"no key":                              {coresdk.Config{TLSCert: "c", TLSCA: "a"}, "not set: CORESDK_TLS_KEY (Config.TLSKey)"},
		"no authority":                        {coresdk.Config{TLSCert: "c", TLSKey: "k"}, "not set: CORESDK_TLS_CA (Config.TLSCA)"},
		"a key alone, for a socket":           {coresdk.Config{Addr: "unix:///run/s", TLSKey: "k"}, "CORESDK_TLS_CERT (Config.TLSCert), CORESDK_TLS_CA"},
		"files that are not there":            {coresdk.Config{TLSCert: "/no/c", TLSKey: "/no/k", TLSCA: "/no/a"}, "CORESDK_TLS_CERT"},
		"a negative timeout":                  {coresdk.Config{Timeout: -1}, "negative"},
		"a service token with a line break":   {coresdk.Config{ServiceToken: "s3cret\r\nx: y"}, "CORESDK_SERVICE_TOKEN"},
		"a service name beyond ASCII":         {coresdk.Config{ServiceName: "prøve"}, "CORESDK_SERVICE_NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sdk, err := coresdk.New(t.Context(), tc.config)
			if sdk != nil || err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v; want an error that says %q", err, tc.says)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error holds a secret: %v", err)
			}
			if conn, err := coresdk.Dial(t.Context(), tc.config); conn != nil || err == nil {
				t.Errorf("Dial takes what New refuses: %v", err)
			}
		})
	}
}

func TestPlaintextInDevReachesLoopback(t *testing.T) {
	t.Parallel()
	s := serve(t, saying(yes()), coresdktest.Options{Addr: loopback})
	_, port, err := net.SplitHostPort(s.Addr)
	noError(t, err)
	for _, addr := range []string{s.Addr, "localhost:" + port} {
		_, err := connect(t, coresdk.Config{Addr: addr, Dev: true}).Authorize(t.Context(), token)
		noError(t, err)
	}
}

func TestASecretDoesNotPrint(t *testing.T) {
	t.Parallel()
	c := coresdk.Config{ServiceToken: "s3cret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "s3cret") || strings.Contains(got, "733363726574") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	text, err := c.ServiceToken.MarshalText()
	if err != nil || string(text) != "[secret]" || c.ServiceToken.LogValue().String() != "[secret]" {
		t.Errorf("encodes %s, logs %v, %v", text, c.ServiceToken.LogValue(), err)
	}
}

// refused checks that New gave nothing but an ErrUnavailable that says why and
// no secret.
func refused(t *testing.T, sdk *coresdk.SDK, err error, says string) {
	t.Helper()
	if sdk != nil || !errors.Is(err, coresdk.ErrUnavailable) {
		t.Fatalf("got an SDK (%v), %v; want ErrUnavailable", sdk != nil, err)
	}
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v; want it to say %q and no secret", err, says)
	}
}

// closedPort returns an address where nobody listens, and nobody can before the
// test ends: it is bound, to a socket that does not.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	noError(t, err)
	t.Cleanup(func() { noError(t, syscall.Close(fd)) })
	noError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := syscall.Getsockname(fd)
	noError(t, err)
	return fmt.Sprint("127.0.0.1:", at.(*syscall.SockaddrInet4).Port)
}

// silentPort returns an address where connections are taken and never
// answered, as by a process that is stopped.
func silentPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	noError(t, err)
	t.Cleanup(func() { noError(t, l.Close()) })
	return l.Addr().String()
}
