// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/coresdk/coresdktest"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// beMain makes this test binary the service, in a process of its own.
const beMain = "GINSERVICE_TEST_BE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(beMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func service(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // ourselves
	cmd.Env = append([]string{beMain + "=1", "GIN_MODE=release"}, env...)
	return cmd
}

// free returns an address that nobody listens on, nor will: on a loopback
// address of our own.
func free(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.N(254), rand.N(256), 1+rand.N(254))) //nolint:gosec // nobody guesses
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	return l.Addr().String()
}

func TestTheServiceAnswersThoseTheSidecarKnows(t *testing.T) {
	t.Parallel()
	sidecar, err := coresdktest.Serve(coresdktest.Tokens(map[string]*coresdkv1.ValidateTokenResponse{
		"clinician": {Subject: "dr-lee", Roles: []string{"clinician"}, Claims: map[string]string{"practice_id": "north"}},
		"patient":   {Subject: "p-001", Roles: []string{"patient"}},
	}), coresdktest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sidecar.Close() })
	url := start(t, service(t, "CORESDK_SIDECAR_ADDR="+sidecar.Addr, "CORESDK_FAIL_MODE=closed")) + "/appointments"

	expect(t, url, "clinician", http.StatusOK, `{"next":"09:30","practice":"north"}`)
	expect(t, url, "patient", http.StatusForbidden, `"code":"forbidden"`)
	expect(t, url, "stolen", http.StatusUnauthorized, "Valid JWT required. Sidecar validation failed.")
	expect(t, url, "", http.StatusUnauthorized, `"code":"unauthorized"`)

	if err := sidecar.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, url, "clinician", http.StatusUnauthorized, `"code":"sidecar_unavailable"`)
}

func TestTheServiceDoesNotStart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ env, says string }{
		"in the open":        {"CORESDK_FAIL_MODE=open", "only fails closed"},
		"in the clear":       {"CORESDK_SIDECAR_ADDR=127.0.0.1:50051", "plaintext to the sidecar is refused"},
		"without a sidecar":  {"CORESDK_SIDECAR_ADDR=unix:///nonexistent/s", "sidecar unavailable"},
		"with half its keys": {"CORESDK_TLS_CERT=client.pem", "CORESDK_TLS_KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := service(t, tc.env).CombinedOutput()
			if err == nil || !strings.Contains(string(out), tc.says) {
				t.Errorf("got %v, %s; want it to say %q", err, out, tc.says)
			}
		})
	}
}

// start starts the service, returns its URL once it listens, and stops it in
// the end.
func start(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	cmd.Stderr = t.Output()
	addr := free(t)
	cmd.Env = append(cmd.Env, "LISTEN="+addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it runs for ever
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr); err == nil {
			_ = c.Close()
			return "http://" + addr
		}
	}
	t.Fatal("nobody listens on ", addr)
	return ""
}

// expect asks until the sidecar was asked in time: it has a second, which a busy
// machine may take.
func expect(t *testing.T, url, token string, status int, body string) {
	t.Helper()
	code, got := get(t, url, token)
	for end := time.Now().Add(time.Minute); strings.Contains(got, "sidecar_unavailable") && !strings.Contains(body, "sidecar_unavailable") && time.Now().Before(end); {
		code, got = get(t, url, token)
	}
	if code != status || !strings.Contains(got, body) {
		t.Errorf("%q gets %d %s; want %d %s", token, code, got, status, body)
	}
}

func get(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(got)
}
