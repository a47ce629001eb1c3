// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/client"
	"github.com/medirecord/medirecord/internal/app"
	"github.com/medirecord/medirecord/internal/children"
	"github.com/medirecord/medirecord/internal/pglocal"
)

// home is where a development server of a test lives. Everything that it and
// the commands beside it write is below.
type home struct {
	root string // reachable for PostgreSQL's own user
	data string // --data
}

func newHome(t *testing.T) home {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "medirecord-e2e-") //nolint:usetesting // t.TempDir is closed to the user that PostgreSQL runs as
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	h := home{root: root, data: filepath.Join(root, "data")}
	for _, err := range []error{os.Chmod(root, 0o755), os.Mkdir(h.logs(), 0o700), os.Mkdir(h.tmp(), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h home) logs() string { return filepath.Join(h.root, "logs") }
func (h home) tmp() string  { return filepath.Join(h.root, "tmp") }

// environ is what the program runs with: nothing of ours that it could stumble
// over.
func (h home) environ(more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.root, "TMPDIR=" + h.tmp()}
	if dir := os.Getenv("MEDIRECORD_PG_BIN"); dir != "" {
		env = append(env, "MEDIRECORD_PG_BIN="+dir)
	}
	return append(env, more...)
}

// said is what a command that has ended said.
type said struct {
	code      int
	out, errs string
}

// run runs the program to its end.
func (h home) run(t *testing.T, env []string, args ...string) said {
	t.Helper()
	return h.runWithin(t, 2*time.Minute, env, args...)
}

func (h home) runWithin(t *testing.T, d time.Duration, env []string, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.root, h.environ(env...), &out, &errs
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// slow is how a command says that a part did not answer in time.
var slow = regexp.MustCompile(`unreachable|unavailable|cannot be (reached|written)`)

// must is run for a command that has to succeed.
func (h home) must(t *testing.T, args ...string) string {
	t.Helper()
	var got said
	eventually(t, 5*time.Minute, "medirecord "+args[0], func() error {
		got = h.run(t, nil, args...)
		if got.code != 0 && slow.MatchString(got.errs) { // see patiently
			return errors.New(got.errs)
		}
		return nil
	})
	if got.code != 0 {
		t.Fatalf("medirecord %s exits %d, want 0: %s%s", args[0], got.code, got.out, got.errs)
	}
	return got.out
}

// running is a part of the system that a test started.
type running struct {
	*children.Child
	out, errs string // files
}

// launch starts the program; it ends with this process at the latest.
func (h home) launch(t *testing.T, name string, env []string, args ...string) *running {
	t.Helper()
	r := &running{}
	var files [2]*os.File
	for i, kind := range []string{"out", "err"} {
		f, err := os.CreateTemp(h.logs(), name+".*."+kind)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }() // the child has its own
		files[i] = f
	}
	r.out, r.errs = files[0].Name(), files[1].Name()
	var err error
	r.Child, err = children.Start(t.Context(), children.Spec{
		Name: name, Path: program, Args: args, Env: h.environ(env...), Dir: h.root, Stdout: files[0], Stderr: files[1], Raw: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Kill() // it has ended, unless the test failed
		<-r.Done()
		if t.Failed() {
			t.Logf("%s said at last:\n%s\n%s", name, tail(r.out), tail(r.errs))
		}
	})
	return r
}

func tail(file string) string {
	b, _ := os.ReadFile(file)
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

func contents(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// devServer is a `medirecord dev`.
type devServer struct {
	*running
	home
	info  app.DevInfo
	procs []process // all of it, the supervisor first
}

// dev starts a development server and returns when it says that it is ready.
func (h home) dev(t *testing.T, env []string, args ...string) *devServer {
	t.Helper()
	s := h.devStarting(t, env, args...)
	s.ready(t)
	return s
}

func (h home) devStarting(t *testing.T, env []string, args ...string) *devServer {
	t.Helper()
	args = append([]string{"dev", "--data", h.data, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--sidecar", "127.0.0.1:0"}, args...)
	return &devServer{running: h.launch(t, "dev", env, args...), home: h}
}

func (s *devServer) ready(t *testing.T) {
	t.Helper()
	eventually(t, 5*time.Minute, "the development server is ready", func() error {
		// The last line of what it prints: those before it may not be all there yet.
		if strings.Contains(contents(t, s.out), "\nCtrl-C stops everything.\n") {
			return nil
		}
		select {
		case <-s.Done():
			text := contents(t, s.errs)
			if strings.Contains(text, pglocal.ErrNoPostgres.Error()) && os.Getenv("CI") == "" {
				t.Skip(text)
			}
			t.Fatalf("it did not start: %s", text)
		default:
		}
		return errors.New("not yet")
	})
	info, err := app.ReadDevInfo(s.data)
	if err != nil {
		t.Fatal(err)
	}
	s.info, s.procs = *info, append([]process{processOf(s.PID())}, descendants(s.PID())...)
}

// gone waits until nothing of the server is left: none of its processes, nor
// any other that has to do with its folder.
func (s *devServer) gone(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Minute, "everything has stopped", func() error {
		for _, p := range s.procs {
			if p.alive() {
				return fmt.Errorf("process %d is there", p.pid)
			}
		}
		if left := mentioning(s.data); len(left) > 0 {
			return fmt.Errorf("processes %v are there", left)
		}
		return nil
	})
	<-s.Done()
}

// stop stops the server as an operator does and wants it to end well.
func (s *devServer) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.Signal(sig); err != nil {
		t.Fatal(err)
	}
	s.gone(t)
	if err := s.Err(); err != nil {
		t.Errorf("after %s: %v, want exit code 0", sig, err)
	}
	if _, err := os.Stat(filepath.Join(s.data, "dev.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dev.json of a stopped server: %v, want none", err)
	}
}

// super connects as the superuser: the test's own eyes.
func (s *devServer) super(t *testing.T, db string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(s.info.Database.SuperuserURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Database = db
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func row[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// eventually waits for the thing itself.
func eventually(t *testing.T, within time.Duration, what string, try func() error) {
	t.Helper()
	until := time.Now().Add(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		<-tick.C
	}
}

// process is one process, and no other that has its number later.
type process struct {
	pid, parent int
	state, born string
}

func processOf(pid int) process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{pid: pid}
	}
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " ")
	f := strings.Fields(rest) // state is the first, field 3 of proc(5)
	parent, _ := strconv.Atoi(f[1])
	return process{pid: pid, parent: parent, state: f[0], born: f[19]}
}

// alive reports whether the process is there and can still do something: a
// zombie cannot.
func (p process) alive() bool {
	now := processOf(p.pid)
	return now.born != "" && now.born == p.born && now.state != "Z" && now.state != "X"
}

func processes() []process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var out []process
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if p := processOf(pid); p.born != "" {
			out = append(out, p)
		}
	}
	return out
}

func descendants(pid int) []process {
	all := processes()
	var out []process
	family := []int{pid}
	for len(family) > 0 {
		for _, p := range all {
			if p.parent == family[0] {
				out, family = append(out, p), append(family, p.pid)
			}
		}
		family = family[1:]
	}
	return out
}

// mentioning lists the processes that run in the folder or were told of it.
func mentioning(dir string) []int {
	var out []int
	for _, p := range processes() {
		base := "/proc/" + strconv.Itoa(p.pid) + "/"
		cwd, _ := os.Readlink(base + "cwd")
		args, _ := os.ReadFile(base + "cmdline")
		env, _ := os.ReadFile(base + "environ")
		if p.alive() && (strings.HasPrefix(cwd, dir) || bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir))) {
			out = append(out, p.pid)
		}
	}
	return out
}

// postgres lists the processes of the server's PostgreSQL, the first one first.
func (s *devServer) postgres() []process {
	all := []process{processOf(s.info.PIDs["postgres"])}
	for _, p := range processes() {
		cwd, _ := os.Readlink("/proc/" + strconv.Itoa(p.pid) + "/cwd")
		if cwd == filepath.Join(s.data, "postgres", "pgdata") && p.pid != all[0].pid {
			all = append(all, p)
		}
	}
	return all
}

// signalPostgres reaches every process of PostgreSQL, those too that were being
// started meanwhile: the first, which starts them, hears it first.
func (s *devServer) signalPostgres(t *testing.T, sig syscall.Signal) {
	t.Helper()
	heard := map[int]bool{}
	for {
		n := len(heard)
		for _, p := range s.postgres() {
			if !heard[p.pid] && p.alive() {
				signalProcess(t, p.pid, sig)
				heard[p.pid] = true
			}
		}
		if len(heard) == n {
			return
		}
	}
}

func signalProcess(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

// answer is what a client got, and when.
type answer struct {
	status       int
	header       http.Header
	body         []byte
	begun, ended time.Time
	err          error
}

// field returns a text of the body's JSON object.
func (a answer) field(name string) string {
	var object map[string]any
	_ = json.Unmarshal(a.body, &object) // what is no object has no fields
	s, _ := object[name].(string)
	return s
}

func (a answer) event() string { return a.header.Get("Audit-Event-Id") }

// clients share connections, as a browser's tabs do.
var clients = sync.OnceValue(func() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}, Timeout: time.Minute}
})

// ask asks a server. Header pairs follow the URL.
func ask(ctx context.Context, url, token string, header ...string) answer {
	a := answer{begun: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{err: err}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := clients().Do(req)
	if err != nil {
		a.err, a.ended = err, time.Now()
		return a
	}
	defer func() { _ = resp.Body.Close() }()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(resp.Body)
	a.ended = time.Now()
	return a
}

// get is ask for a question that must be answered.
func (s *devServer) get(t *testing.T, token, path string, header ...string) answer {
	t.Helper()
	a := patiently(t, func() answer { return ask(t.Context(), s.info.API+path, token, header...) })
	if a.err != nil {
		t.Fatal(a.err)
	}
	return a
}

// busy reports whether an answer says that a part did not answer in time: nothing
// was disclosed and nothing done, and whoever asks may ask again.
func (a answer) busy() bool {
	return slices.Contains([]string{noSidecar, noDatabase, noTrail, noKeys}, fmt.Sprintf("%d %s", a.status, a.field("code")))
}

// patiently asks again while the answer is that a part did not answer in time: it
// has a second or two, and on a machine whose disk is busy with other things one
// commit can take longer. What is asked here is what the answer is, not when.
func patiently(t *testing.T, question func() answer) (a answer) {
	t.Helper()
	eventually(t, 2*time.Minute, "an answer", func() error {
		if a = question(); a.busy() {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	return a
}

// patient is patiently for the API's client.
type patient struct{ t *testing.T }

func (p patient) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	patiently(p.t, func() (a answer) {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			again.Body, _ = r.GetBody() // of bytes that are there
		}
		if resp, err = http.DefaultTransport.RoundTrip(again); err != nil {
			return a
		}
		defer func() { _ = resp.Body.Close() }()
		a.status = resp.StatusCode
		a.body, err = io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(bytes.NewReader(a.body))
		return a
	})
	return resp, err
}

// client is the API's client for the bearer of the token.
func (s *devServer) client(t *testing.T, token string) *client.ClientWithResponses {
	t.Helper()
	c, err := client.New(client.Config{Server: s.info.API, Token: client.Bearer(token), HTTP: &http.Client{Transport: patient{t}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ready waits until the operations listener says that all is well.
func ready(t *testing.T, ops string) {
	t.Helper()
	eventually(t, 2*time.Minute, "/readyz is green", func() error {
		if status, failing := health(t, ops, "/readyz"); status != http.StatusOK {
			return fmt.Errorf("%d, failing: %v", status, failing)
		}
		return nil
	})
}

// health returns what the operations listener says, and which checks fail.
func health(t *testing.T, ops, path string) (status int, failing []string) {
	t.Helper()
	a := ask(t.Context(), ops+path, "")
	var said struct {
		Checks []struct {
			Name string
			OK   bool
		}
	}
	if err := errors.Join(a.err, json.Unmarshal(a.body, &said)); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, c := range said.Checks {
		if !c.OK {
			failing = append(failing, c.Name)
		}
	}
	slices.Sort(failing)
	return a.status, failing
}
