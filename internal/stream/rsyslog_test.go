// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/siem"
)

// rsyslog is the receiver from Debian, with mutual certificates.
type rsyslog struct {
	t                 *testing.T
	program, conf     string
	address, out, dir string
	cmd               *exec.Cmd
	exited            chan struct{}
}

func newRsyslog(t *testing.T, a *authority, driver string) *rsyslog {
	t.Helper()
	program := ""
	for _, p := range []string{"rsyslogd", "/usr/sbin/rsyslogd"} {
		if found, err := exec.LookPath(p); err == nil {
			program = found
			break
		}
	}
	modules, err := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_" + driver + ".so")
	if err != nil {
		t.Fatal(err)
	}
	if program == "" || len(modules) == 0 {
		const want = "there is no rsyslogd with that driver: apt-get install rsyslog rsyslog-gnutls rsyslog-openssl"
		if os.Getenv("CI") != "" {
			t.Fatal(want)
		}
		t.Skip(want)
	}
	address := reserved(t)
	_, certFile, keyFile := a.issue(t, "siem.example")
	dir := t.TempDir()
	r := &rsyslog{t: t, program: program, conf: filepath.Join(dir, "rsyslog.conf"), address: address, out: filepath.Join(dir, "audit.log"), dir: dir}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	conf := receiver
	for from, to := range map[string]string{
		"/etc/ssl/siem/ca.crt": filepath.Join(a.dir, "ca.crt"), "/etc/ssl/siem/siem.crt": certFile, "/etc/ssl/siem/siem.key": keyFile,
		"/var/spool/rsyslog": dir, "/var/log/medirecord.log": r.out, `port="6514"`: `port="` + port + `" address="127.0.0.1"`, `"gtls"`: `"` + driver + `"`,
	} {
		conf = strings.ReplaceAll(conf, from, to)
	}
	if err := os.WriteFile(r.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd != nil {
			r.kill()
		}
	})
	return r
}

// reserved returns a port of loopback that nobody is given who asks for any port,
// until the test ends: a socket is bound to it, and does not listen. Who asks for
// this one may listen there, and again after being killed.
func reserved(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", at.(*syscall.SockaddrInet4).Port)
}

// receiver is the configuration that docs/operate.md shows.
const receiver = `global(
  workDirectory="/var/spool/rsyslog"
  defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="/etc/ssl/siem/ca.crt"
  defaultNetstreamDriverCertFile="/etc/ssl/siem/siem.crt"
  defaultNetstreamDriverKeyFile="/etc/ssl/siem/siem.key"
)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["medirecord-stream"])
template(name="asSent" type="string" string="%rawmsg%\n")
ruleset(name="medirecord" queue.type="Direct") {
  action(type="omfile" file="/var/log/medirecord.log" template="asSent" fileCreateMode="0640")
}
input(type="imtcp" port="6514" ruleset="medirecord")
`

// TestTheReceiverIsTheOneInTheDocuments: what is killed here is what operators
// are told to run.
func TestTheReceiverIsTheOneInTheDocuments(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "\n```\n"+receiver+"```\n") {
		t.Errorf("docs/operate.md does not show this receiver:\n%s", receiver)
	}
}

func (r *rsyslog) start() {
	r.t.Helper()
	r.cmd = exec.CommandContext(context.Background(), r.program, "-n", "-f", r.conf, "-i", filepath.Join(r.dir, "pid")) //nolint:gosec // found above
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	r.cmd.Stderr, r.cmd.Stdout = &said, &said
	_ = os.Remove(filepath.Join(r.dir, "pid"))
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.exited = make(chan struct{})
	go func() { defer close(r.exited); _ = r.cmd.Wait() }()
	await(r.t, "rsyslogd to listen", func() bool {
		select {
		case <-r.exited:
			r.t.Fatalf("rsyslogd ended: %s", said.String())
		default:
		}
		conn, err := net.Dial("tcp", r.address) //nolint:noctx // loopback
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (r *rsyslog) kill() {
	_ = r.cmd.Process.Kill()
	<-r.exited
}

var sent = regexp.MustCompile(`^<\d+>1 \S+ mr1\.example medirecord - AUDIT \[medirecord@32473 event="([0-9a-f-]{36})" epoch="(\d+)" leaf="(\d+)" action="read" outcome="success" break_glass="false"\] (\{.*\})$`)

// arrived reads the receiver's file: how often each leaf is there. A line that
// the kill cut short stands before a whole one, and does not count.
func (r *rsyslog) arrived() (times map[string]int, texts map[string]string, halves int) {
	times, texts = map[string]int{}, map[string]string{}
	b, err := os.ReadFile(r.out)
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.LastIndex(line, " mr1.example medirecord - AUDIT [medirecord@32473 event="); i > 0 {
			if start := strings.LastIndex(line[:i], "<"); start > 0 {
				line = line[start:]
				halves++
			}
		}
		m := sent.FindStringSubmatch(line)
		if m == nil {
			halves++
			continue
		}
		leaf := m[2] + "/" + m[3]
		times[leaf]++
		if was, there := texts[leaf]; there && was != line {
			r.t.Errorf("leaf %s came twice and differs:\n%s\n%s", leaf, was, line)
		}
		texts[leaf] = line
	}
	return times, texts, halves
}

// TestRsyslogKilledLosesNothing: the receiver is killed and started again and
// again while entries come in. In the end each entry is in its file, as it is
// in the trail; what is there twice is the same event.
func TestRsyslogKilledLosesNothing(t *testing.T) {
	for _, driver := range []string{"gtls", "ossl"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := newAuthority(t)
			r := newRsyslog(t, a, driver)
			cert, _, _ := a.issue(t, "medirecord-stream")
			cfg := w.config(Sink{Name: "siem", Kind: Syslog, Address: r.address, Format: siem.MediRecord, RootCAs: a.pool, Certificate: reading(cert), Batch: 200, Settle: 500 * time.Millisecond})
			w.seal(t, 1, 500)
			s, stop := run(t, cfg)
			await(t, "a failure while nobody listens", func() bool { return s.Stats()[0].Failures > 0 })
			for i := range 6 {
				r.start()
				before := len(first(r.arrived()))
				w.seal(t, 1, 1000)
				await(t, "entries to arrive", func() bool { return len(first(r.arrived())) > before+50*i })
				w.seal(t, 1, 300) // and some on the way, whatever happens
				r.kill()
				if i == 3 { // and we are killed too, or at least begin anew
					stop()
					s, stop = run(t, cfg)
				}
			}
			r.start()
			w.seal(t, 1, 100)
			await(t, "the cursor to be behind everything", func() bool { return w.caughtUp(t, "siem") })
			times, texts, halves := r.arrived()
			twice := 0
			for i, id := range w.ids[1] {
				leaf := "1/" + strconv.Itoa(i)
				if times[leaf] == 0 {
					t.Fatalf("leaf %s is lost", leaf)
				}
				if times[leaf] > 1 {
					twice++
				}
				if !strings.Contains(texts[leaf], `"id":"`+id+`"`) || !strings.Contains(texts[leaf], `event="`+id+`"`) {
					t.Fatalf("leaf %s is not entry %s: %s", leaf, id, texts[leaf])
				}
				if !strings.Contains(texts[leaf], `"user_agent":"portal/1.0 \"]\\ \u003cZo\u00eb\u003e 42 \u003c85\u003e1"`) {
					t.Fatalf("leaf %s arrived changed: %s", leaf, texts[leaf])
				}
			}
			if len(times) != len(w.ids[1]) {
				t.Errorf("%d leaves arrived, want %d", len(times), len(w.ids[1]))
			}
			t.Logf("%d entries, %d of them more than once, %d halves of lines, %d failures", len(w.ids[1]), twice, halves, s.Stats()[0].Failures)
			if st := s.Stats()[0]; st.Behind != 0 && st.Lag > time.Minute || !st.Leader {
				t.Errorf("got %+v", st)
			}
		})
	}
}

func first[A, B, C any](a A, _ B, _ C) A { return a }

// TestSyslogWantsBothCertificates: neither side speaks with a stranger.
func TestSyslogWantsBothCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 3)
	a, other := newAuthority(t), newAuthority(t)
	r := newRsyslog(t, a, "gtls")
	r.start()
	mine, _, _ := a.issue(t, "medirecord-stream")
	stranger, _, _ := a.issue(t, "somebody-else")
	foreign, _, _ := other.issue(t, "medirecord-stream")
	sink := func(name string, change func(*Sink)) Sink {
		s := Sink{Name: name, Kind: Syslog, Address: r.address, Format: siem.MediRecord, RootCAs: a.pool, Certificate: reading(mine), Settle: 100 * time.Millisecond}
		change(&s)
		return s
	}
	s, _ := run(t, w.config(
		sink("good", func(*Sink) {}),
		sink("stranger", func(s *Sink) { s.Certificate = reading(stranger) }),
		sink("foreign", func(s *Sink) { s.Certificate = reading(foreign) }),
		sink("impostor", func(s *Sink) { s.RootCAs = other.pool }),
	))
	await(t, "the good one to arrive", func() bool { return w.caughtUp(t, "good") })
	for i, name := range []string{"good", "stranger", "foreign", "impostor"} {
		if i == 0 {
			continue
		}
		await(t, name+" to be refused", func() bool { return s.Stats()[i].Failures > 2 })
		if p := w.progress(t, name); p.Next != 0 || p.LastError == "" {
			t.Errorf("%s: got %+v", name, p)
		}
	}
	if got := s.Stats()[3].Code; got != "their_certificate" {
		t.Errorf("the impostor's code is %q", got)
	}
	if times, _, _ := r.arrived(); len(times) != 3 {
		t.Errorf("arrived: %v", times)
	}
	if !w.log.has(fmt.Sprintf("%q:%q", "sink", "stranger")) {
		t.Error("the log does not name the sink")
	}
}
