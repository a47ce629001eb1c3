// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/client"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { medtest.Main(m) }

// The client is what the generator makes of docs/openapi.yaml.
func TestGenerated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"generate.yaml", "overlay.yaml"} {
		copyFile(t, name, filepath.Join(dir, name))
	}
	docs, tools := absolute(t, filepath.Join("..", "docs", "openapi.yaml")), absolute(t, filepath.Join("..", "tools", "go.mod"))
	built := exec.CommandContext(t.Context(), "go", "build", "-modfile="+tools, "-o", filepath.Join(dir, "oapi-codegen"), "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen") //nolint:gosec // names of ours
	if out, err := built.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "" && bytes.Contains(out, []byte("dial tcp")) {
			t.Skipf("the generator cannot be fetched: %s", out)
		}
		t.Fatalf("building the generator: %v\n%s", err, out)
	}
	made := exec.CommandContext(t.Context(), filepath.Join(dir, "oapi-codegen"), "-config", "generate.yaml", docs) //nolint:gosec // names of ours
	made.Dir = dir
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("generating: %v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "client.gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		copyFile(t, filepath.Join(dir, "client.gen.go"), "client.gen.go")
	}
	want, err := os.ReadFile("client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("client.gen.go is not what docs/openapi.yaml makes: run go test ./client -update")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil { //nolint:gosec // source is for everybody
		t.Fatal(err)
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func as(t *testing.T, server, token string) *client.ClientWithResponses {
	t.Helper()
	c, err := client.New(client.Config{Server: server, Token: client.Bearer(token)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A patient is read, and who read them, through the client and nothing else.
func TestClientAgainstASystem(t *testing.T) {
	t.Parallel()
	s := medtest.New(t)
	alice := string(s.Patient(t, medtest.North, medtest.Alice()))
	ctx := t.Context()
	read, err := as(t, s.Server.URL, s.Of(t, med.RoleClinician, medtest.North)).ReadPatientWithResponse(ctx, alice, nil)
	if err != nil || read.JSON200 == nil || read.JSON200.Name != "Alice Smith" || read.JSON200.Ssn != "123-45-6789" || read.HTTPResponse.Header.Get("Audit-Event-Id") == "" {
		t.Fatalf("a clinician reads: %+v, %v", read, err)
	}
	herself := as(t, s.Server.URL, s.PatientOf(t, med.PatientID(alice), medtest.North))
	own, err := herself.ReadPatientWithResponse(ctx, alice, nil)
	if err != nil || own.JSON200.Ssn != "***-**-6789" || own.JSON200.Diagnosis != "" {
		t.Errorf("herself: %+v, %v", own, err)
	}
	limit := int64(1)
	var who []string
	ask := &client.ListAccessesParams{Limit: &limit}
	for range 10 {
		page, err := herself.ListAccessesWithResponse(ctx, alice, ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.JSON200.Data {
			who = append(who, a.Who)
		}
		if ask.Cursor = page.JSON200.Page.Next; ask.Cursor == nil {
			break
		}
	}
	if !slices.Contains(who, "the-clinician") {
		t.Errorf("who saw it, page by page: %v", who)
	}
	var p *client.Problem
	_, err = as(t, s.Server.URL, s.Of(t, med.RoleClinician, medtest.South)).ReadPatientWithResponse(ctx, alice, nil)
	if !errors.As(err, &p) || p.Status != 403 || p.Slug() != "forbidden" || p.Code != "other_practice" || p.HipaaCategory != "access_control" {
		t.Errorf("of another practice: %v", err)
	}
}

// A token goes to nobody in the clear, and where a redirect leads.
func TestATokenIsNotGivenAway(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]bool{
		"https://api.example": true, "http://127.0.0.1:8080": true, "http://[::1]:8080/": true, "http://localhost": true,
		"http://api.example": false, "http://127.0.0.1.example": false, "ftp://localhost": false, "api.example": false, "": false,
	} {
		if _, err := client.New(client.Config{Server: server, Token: client.Bearer("x")}); (err == nil) != want {
			t.Errorf("%s: %v", server, err)
		}
	}
	if _, err := client.New(client.Config{Server: "https://api.example"}); err == nil {
		t.Error("no token is needed")
	}
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	t.Cleanup(elsewhere.Close)
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(srv.Close)
	if res, err := as(t, srv.URL, "x").ReadPatientWithResponse(t.Context(), "p-001", nil); asked != 0 || err != nil || res.JSON200 != nil {
		t.Errorf("a redirect was followed: %d, %v", asked, err)
	}
}

// What is no problem of ours is no *Problem, and is not repeated.
func TestAnswersOfSomethingBefore(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>Alice Smith</html>")
	}))
	t.Cleanup(srv.Close)
	var p *client.Problem
	_, err := as(t, srv.URL, "x").ReadPatientWithResponse(t.Context(), "p-001", nil)
	if err == nil || errors.As(err, &p) || strings.Contains(err.Error(), "Alice") || !strings.Contains(err.Error(), "502") {
		t.Errorf("got %v", err)
	}
}

// A TypeScript client is generated from the contract, compiles under every check
// there is, and works against a system. It is not kept.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s: apt-get install nodejs npm", name)
		}
	}
	if testing.Short() {
		t.Skip("it fetches packages")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "main.ts"} {
		copyFile(t, filepath.Join("testdata", "typescript", name), filepath.Join(dir, name))
	}
	if out, err := run(t.Context(), dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		t.Skipf("the packages cannot be fetched: %v\n%s", err, out)
	}
	for _, command := range [][]string{
		{"node_modules/.bin/openapi-typescript", absolute(t, filepath.Join("..", "docs", "openapi.yaml")), "-o", "contract.ts"},
		{"node_modules/.bin/tsc", "-p", "."},
	} {
		if out, err := run(t.Context(), dir, command[0], command[1:]...); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	s := medtest.New(t)
	alice := string(s.Patient(t, medtest.North, medtest.Alice()))
	out, err := run(t.Context(), dir, "node", "out/main.js", s.Server.URL, s.Of(t, med.RoleClinician, medtest.North), s.Of(t, med.RoleOfficer, medtest.North), alice)
	if want := "name Alice Smith\nentries 2\nrefused 403 access_control\n"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if strings.Contains(name, "/") {
		cmd.Path = filepath.Join(dir, name)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
