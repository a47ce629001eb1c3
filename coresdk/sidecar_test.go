// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

const token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjbGluaWNpYW4tMSJ9.c2lnbmF0dXJl"

// loopback is a free port on it.
const loopback = "127.0.0.1:0"

// sidecarEnv makes this test binary a sidecar instead: a process of its own
// that a test can stop and continue.
const sidecarEnv = "CORESDK_TEST_BE_A_SIDECAR"

func TestMain(m *testing.M) {
	if os.Getenv(sidecarEnv) != "" {
		beSidecar()
		return
	}
	os.Exit(m.Run())
}

func beSidecar() {
	s, err := coresdktest.Serve(saying(yes()), coresdktest.Options{})
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString(s.Addr + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test lets go
	_ = s.Close()
}

// process starts a sidecar in a process of its own.
func process(t *testing.T) (*os.Process, string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0]) //nolint:gosec // ourselves; it leaves by itself, and tidies up
	cmd.Env = append(os.Environ(), sidecarEnv+"=1")
	in, err := cmd.StdinPipe()
	noError(t, err)
	out, err := cmd.StdoutPipe()
	noError(t, err)
	noError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	noError(t, err)
	return cmd.Process, strings.TrimSpace(addr)
}

// yes is the clean answer about a clinician's token.
func yes() *coresdkv1.ValidateTokenResponse {
	return &coresdkv1.ValidateTokenResponse{
		Valid: true, Subject: "clinician-1", Roles: []string{"clinician"}, ExpiresAt: time.Now().Add(time.Hour).Unix(),
		Claims: map[string]string{"iss": "https://id.example", "practice_id": "practice-1", "mfa_verified": "true"},
	}
}

func saying(a *coresdkv1.ValidateTokenResponse) coresdktest.Answers {
	return coresdktest.Answers{
		ValidateToken: func(context.Context, *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
			return a, nil
		},
	}
}

func serve(t *testing.T, a coresdktest.Answers, o coresdktest.Options) *coresdktest.Sidecar {
	t.Helper()
	s, err := coresdktest.Serve(a, o)
	for end := time.Now().Add(patience); o.Addr != "" && err != nil && time.Now().Before(end); { // somebody else on this machine may have the port for a moment
		time.Sleep(10 * time.Millisecond)
		s, err = coresdktest.Serve(a, o)
	}
	noError(t, err)
	t.Cleanup(func() { noError(t, s.Close()) })
	return s
}

// patience is what a connection or a call has, whose time is not what is asked:
// on a machine that is busy with other things a second is chance.
const patience = time.Minute

func connect(t *testing.T, c coresdk.Config) *coresdk.SDK {
	t.Helper()
	c.Timeout, c.ConnectTimeout = cmp.Or(c.Timeout, patience), cmp.Or(c.ConnectTimeout, patience)
	sdk, err := coresdk.New(t.Context(), c)
	noError(t, err)
	t.Cleanup(func() { noError(t, sdk.Close()) })
	return sdk
}

func asking(t *testing.T, a coresdktest.Answers) *coresdk.SDK {
	t.Helper()
	return connect(t, coresdk.Config{Addr: serve(t, a, coresdktest.Options{}).Addr})
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
