// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func TestConfigOfTheEnvironment(t *testing.T) {
	t.Parallel()
	got, err := configFrom(env(map[string]string{
		"CORESDK_SIDECAR_ADDR": "unix:///run/sidecar.sock", "CORESDK_FAIL_MODE": "closed", "CORESDK_TENANT_ID": "practice-1",
		"CORESDK_SERVICE_NAME": "desk", "CORESDK_SERVICE_TOKEN": "s3cret", "CORESDK_ENV": "dev",
		"CORESDK_TLS_CERT": "c", "CORESDK_TLS_KEY": "k", "CORESDK_TLS_CA": "a",
		"CORESDK_JWKS_URI": "https://id.example/jwks", "CORESDK_JWKS_URL": "https://id.example/jwks", // the sidecar's
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Addr: "unix:///run/sidecar.sock", TenantID: "practice-1", ServiceName: "desk", ServiceToken: "s3cret",
		TLSCert: "c", TLSKey: "k", TLSCA: "a", Dev: true,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("configuration (-got +want):\n%s", diff)
	}
}

func TestFailModeIsClosedOrRefused(t *testing.T) {
	t.Parallel()
	for mode, accepted := range map[string]bool{
		"": true, "closed": true, "open": false, "CLOSED": false, " closed": false, "degraded": false, "0": false,
	} {
		_, err := configFrom(env(map[string]string{"CORESDK_FAIL_MODE": mode}))
		if (err == nil) != accepted {
			t.Errorf("fail mode %q: %v", mode, err)
		}
		if err != nil && !strings.Contains(err.Error(), "CORESDK_FAIL_MODE") {
			t.Errorf("fail mode %q: %v does not name the variable", mode, err)
		}
	}
}

func TestOnlyDevIsDev(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"", "development", "DEV", "prod", "true"} {
		if c, err := configFrom(env(map[string]string{"CORESDK_ENV": word})); err != nil || c.Dev {
			t.Errorf("CORESDK_ENV %q counts as dev (%v)", word, err)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	got, err := Config{}.checked()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Addr: "localhost:50051", ServiceName: "unknown_service", Timeout: DefaultTimeout, ConnectTimeout: DefaultConnectTimeout}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("configuration (-got +want):\n%s", diff)
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"localhost:1": true, "127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true,
		"10.0.0.1:1": false, "[::]:1": false, "0.0.0.0:1": false, "127.0.0.1.example.org:1": false, "[fe80::1%lo]:1": false,
	} {
		a, err := parseAddress(addr)
		if err != nil || a.loopback() != want {
			t.Errorf("%s counts as loopback: %v, %v", addr, a.loopback(), err)
		}
	}
}

// A name is checked by what it resolves to, at the moment it is dialled.
func TestPlaintextDoesNotFollowALyingName(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"192.0.2.1:50051", "0.0.0.0:50051", "[2001:db8::1]:50051"} {
		liar := address{network: "tcp", endpoint: endpoint, host: "localhost"}
		conn, err := liar.dialer(true)(t.Context(), "")
		if conn != nil || err == nil || !strings.Contains(err.Error(), "not loopback") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	honest := address{network: "tcp", endpoint: l.Addr().String(), host: "localhost"}
	for _, dial := range []func(context.Context, string) (net.Conn, error){honest.dialer(true), honest.dialer(false)} {
		conn, err := dial(t.Context(), "ignored")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"localhost:50051", "[::1]:1", "unix:///run/s", "unix://x", ":1", "a@b:1", "[fe80::1%lo]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		switch a.network {
		case "unix":
			if !strings.HasPrefix(a.endpoint, "/") || a.loopback() {
				t.Errorf("%q is a socket at %q", s, a.endpoint)
			}
		case "tcp":
			host, port, err := net.SplitHostPort(a.endpoint)
			if err != nil || host == "" || port == "" || host != a.host {
				t.Errorf("%q is %q and %q: %v", s, host, port, err)
			}
		default:
			t.Errorf("%q has network %q", s, a.network)
		}
	})
}

func FuzzToken68(f *testing.F) {
	for _, s := range []string{"a", "a=", "=a", "a=b", "a b", "a.b-c_d~e+f/g=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if token68(s) && (s == "" || len(s) > MaxToken || strings.ContainsAny(s, " ,\t\r\n\"\x00") || !printable(s)) {
			t.Errorf("%q counts as a token", s)
		}
	})
}
