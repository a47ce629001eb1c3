// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/sidecar"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	noError(t, err)
	return string(b)
}

func TestPlaintextIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		listen sidecar.Listen
		says   string // "" means: taken
	}{
		"loopback outside dev":          {sidecar.Listen{Addrs: []string{"127.0.0.1:0"}}, "would be plaintext"},
		"localhost outside dev":         {sidecar.Listen{Addrs: []string{"localhost:0"}}, "would be plaintext"},
		"every address in dev":          {sidecar.Listen{Addrs: []string{"0.0.0.0:0"}, Dev: true}, "would be plaintext"},
		"no address in dev":             {sidecar.Listen{Addrs: []string{":0"}, Dev: true}, "would be plaintext"},
		"a name in dev":                 {sidecar.Listen{Addrs: []string{"sidecar.example:0"}, Dev: true}, "would be plaintext"},
		"one of two":                    {sidecar.Listen{Addrs: []string{"127.0.0.1:0", "192.0.2.1:0"}, Dev: true}, "would be plaintext"},
		"a unix socket outside dev":     {sidecar.Listen{Addrs: []string{"unix://" + filepath.Join(t.TempDir(), "s")}}, ""},
		"both loopbacks in dev":         {sidecar.Listen{Addrs: []string{"127.0.0.1:0", "[::1]:0"}, Dev: true}, ""},
		"no address":                    {sidecar.Listen{Dev: true}, "no address"},
		"no port":                       {sidecar.Listen{Addrs: []string{"127.0.0.1"}, Dev: true}, "host:port"},
		"a certificate without its key": {sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, TLSCert: ca.server.cert, Dev: true}, "certificate"},
		"no authority":                  {sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, TLSCert: ca.server.cert, TLSKey: ca.server.key, Dev: true}, "CA"},
		"an authority that is none":     {sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, TLSCert: ca.server.cert, TLSKey: ca.server.key, TLSCA: ca.server.key}, "no certificate"},
		"mutual TLS on every address":   {sidecar.Listen{Addrs: []string{"0.0.0.0:0"}, TLSCert: ca.server.cert, TLSKey: ca.server.key, TLSCA: ca.file}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "both loopbacks in dev" && !hasIPv6() {
				t.Skip("this machine has no ::1")
			}
			s, err := w.service.Listening(t.Context(), tc.listen)
			if s != nil {
				defer s.Stop()
			}
			if tc.says == "" {
				noError(t, err)
				if len(s.Addrs()) != len(tc.listen.Addrs) {
					t.Errorf("listens at %v", s.Addrs())
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want it to say %q", err, tc.says)
			}
		})
	}
}

func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func TestBothLoopbacksAnswer(t *testing.T) {
	t.Parallel()
	if !hasIPv6() {
		t.Skip("this machine has no ::1")
	}
	w := start(t, options{})
	s := listening(t, w.service, sidecar.Listen{Addrs: []string{"127.0.0.1:0", "[::1]:0"}, Dev: true})
	for _, addr := range s.Addrs() {
		serving(t, connect(t, addr.String(), ""))
	}
}

func serving(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	a, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil || a.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v; want SERVING", a, err)
	}
}

func TestAUnixSocket(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	path := filepath.Join(t.TempDir(), "sidecar.sock")
	addr := "unix://" + path

	// What a kill left behind: a socket that nobody listens at.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	noError(t, err)
	dead.SetUnlinkOnClose(false)
	noError(t, dead.Close())

	listening(t, w.service, sidecar.Listen{Addrs: []string{addr}})
	info, err := os.Stat(path)
	noError(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %o, want 600", info.Mode().Perm())
	}
	// Outside dev, the SDK takes it too; the token says which service it is.
	conn, err := coresdk.Dial(t.Context(), coresdk.Config{Addr: addr, ServiceToken: "import-token"})
	noError(t, err)
	defer func() { _ = conn.Close() }()
	if askOn(t, pb.NewGateServiceClient(conn), serveQ("import", "north"))[0].GetRuling() == nil {
		t.Error("no context for the service")
	}

	t.Run("a group may use it", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() != 0 {
			t.Skip("only root may give a file to any group")
		}
		path := filepath.Join(t.TempDir(), "s")
		s, err := w.service.Listening(t.Context(), sidecar.Listen{Addrs: []string{"unix://" + path}, Group: "daemon"})
		noError(t, err)
		defer s.Stop()
		info, err := os.Stat(path)
		noError(t, err)
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || info.Mode().Perm() != 0o660 || st.Gid == 0 {
			t.Errorf("mode %o, %+v; want 660 and the group's", info.Mode().Perm(), info.Sys())
		}
		if s, err := w.service.Listening(t.Context(), sidecar.Listen{Addrs: []string{"unix://" + path + "2"}, Group: "no-such-group"}); err == nil {
			s.Stop()
			t.Error("listens for a group that is none")
		}
	})
	t.Run("a file in its place is not removed", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "precious")
		noError(t, os.WriteFile(path, []byte("precious"), 0o600))
		if s, err := w.service.Listening(t.Context(), sidecar.Listen{Addrs: []string{"unix://" + path}}); err == nil {
			s.Stop()
			t.Error("listens in the place of a file")
		}
		if readFile(t, path) != "precious" {
			t.Error("the file is gone")
		}
	})
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ours, theirs := newAuthority(t), newAuthority(t)
	s := listening(t, w.service, sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, TLSCert: ours.server.cert, TLSKey: ours.server.key, TLSCA: ours.file})
	addr := s.Addrs()[0].String()

	for _, tc := range []struct {
		cn, token    string
		code, detail string // of the refusal of an import
	}{
		{"service:import", "", "", ""},
		{"service:worker", "", "denied", "service_action"},
		{"service:worker", "import-token", "denied", "service_action"}, // the certificate says who it is, whatever else is said
		{"import", "", "unauthenticated", "no_service"},
		{"service:", "", "unauthenticated", "no_service"},
		{"service:root", "", "unauthenticated", "no_service"},
		{"SERVICE:import", "", "unauthenticated", "no_service"},
		{"service:service:import", "", "unauthenticated", "no_service"},
		{"api", "", "unauthenticated", "no_service"},
		{"api", "import-token", "unauthenticated", "no_service"},
	} {
		t.Run(tc.cn+" with "+tc.token, func(t *testing.T) {
			t.Parallel()
			c := ours.client(t, tc.cn)
			conn, err := coresdk.Dial(t.Context(), coresdk.Config{
				Addr: addr, TLSCert: c.cert, TLSKey: c.key, TLSCA: ours.file, ServiceToken: coresdk.Secret(tc.token), ConnectTimeout: 60 * time.Second,
			})
			noError(t, err)
			defer func() { _ = conn.Close() }()
			gate := pb.NewGateServiceClient(conn)
			a := askOn(t, gate, serveQ("import", "north"))[0]
			if tc.code == "" {
				if c := contextOf(t, w, a.GetRuling()); c.Service != "import" {
					t.Errorf("got %+v", c)
				}
			} else {
				refusedWith(t, a, tc.code, tc.detail)
			}
			// Whoever they are, a user's token is a user's token.
			if askOn(t, gate, who(w.token(t, nil)))[0].GetCaller() == nil {
				t.Error("a good token is refused")
			}
		})
	}

	root := x509.NewCertPool()
	root.AddCert(ours.cert)
	mine := ours.client(t, "service:import").pair(t)
	for name, tc := range map[string]struct {
		config *tls.Config
		passes bool
	}{
		"TLS 1.3 with our certificate":             {&tls.Config{RootCAs: root, Certificates: []tls.Certificate{mine}}, true},
		"TLS 1.2":                                  {&tls.Config{RootCAs: root, Certificates: []tls.Certificate{mine}, MaxVersion: tls.VersionTLS12}, false},
		"no certificate":                           {&tls.Config{RootCAs: root}, false},
		"another authority's":                      {&tls.Config{RootCAs: root, Certificates: []tls.Certificate{theirs.client(t, "service:import").pair(t)}}, false},
		"a server's certificate, not ours to show": {&tls.Config{RootCAs: root, Certificates: []tls.Certificate{ours.server.pair(t)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(tc.config)))
			noError(t, err)
			defer func() { _ = conn.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
			if (err == nil) != tc.passes {
				t.Errorf("got %v, passes %v", err, tc.passes)
			}
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		if _, err := healthpb.NewHealthClient(connect(t, addr, "import-token")).Check(ctx, &healthpb.HealthCheckRequest{}); err == nil {
			t.Error("answered in plaintext")
		}
	})
}

// authority is a certificate authority with what it signed.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	dir    string
	file   string
	server keyFiles
}

type keyFiles struct{ cert, key string }

func (k keyFiles) pair(t *testing.T) tls.Certificate {
	t.Helper()
	p, err := tls.LoadX509KeyPair(k.cert, k.key)
	noError(t, err)
	return p
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, a.key.Public(), a.key)
	noError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	noError(t, err)
	a.file = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.file, "CERTIFICATE", der)
	a.server = a.sign(t, "server", &x509.Certificate{
		Subject: pkix.Name{CommonName: "service:import"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	return a
}

// client signs a client's certificate with this common name.
func (a *authority) client(t *testing.T, cn string) keyFiles {
	t.Helper()
	return a.sign(t, rand.Text(), &x509.Certificate{Subject: pkix.Name{CommonName: cn}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (a *authority) sign(t *testing.T, name string, leaf *x509.Certificate) keyFiles {
	t.Helper()
	leaf.SerialNumber, leaf.NotBefore, leaf.NotAfter, leaf.KeyUsage = big.NewInt(time.Now().UnixNano()), a.cert.NotBefore, a.cert.NotAfter, x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	noError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	noError(t, err)
	files := keyFiles{filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")}
	writePEM(t, files.cert, "CERTIFICATE", der)
	writePEM(t, files.key, "PRIVATE KEY", private)
	return files
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	noError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}
