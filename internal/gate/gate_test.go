// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// far is a sidecar at the other end of a real connection, good or bad as the
// test wants it.
type far struct {
	pb.UnimplementedGateServiceServer
	ask    func(pb.GateService_AskServer) error
	addr   string
	server *grpc.Server
	ahead  time.Duration // of its clock

	streams, messages, questions atomic.Int64
}

func (f *far) Ask(s pb.GateService_AskServer) error {
	f.streams.Add(1)
	return f.ask(s)
}

// receive counts what comes.
func (f *far) receive(s pb.GateService_AskServer) (*pb.Questions, error) {
	m, err := s.Recv()
	if err == nil {
		f.messages.Add(1)
		f.questions.Add(int64(len(m.GetQuestions())))
	}
	return m, err
}

// answering answers each message, question by question.
func (f *far) answering(answer func(*pb.Question) *pb.Answer) func(pb.GateService_AskServer) error {
	return func(s pb.GateService_AskServer) error {
		for {
			m, err := f.receive(s)
			if err != nil {
				return err
			}
			out := &pb.Answers{At: time.Now().Add(f.ahead).UnixMilli()}
			for _, q := range m.GetQuestions() {
				if a := answer(q); a != nil {
					out.Answers = append(out.Answers, a)
				}
			}
			if err := s.Send(out); err != nil {
				return err
			}
		}
	}
}

// echo says that a token's subject is the token.
func echo(q *pb.Question) *pb.Answer {
	return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Caller{Caller: &pb.Caller{
		Issuer: "i", Subject: q.GetWho().GetToken(), Roles: []string{"nurse"}, PracticeId: "north", Mfa: "done", ExpiresAt: time.Now().Add(time.Hour).Unix(),
	}}}
}

// serve starts it, at an address of its own or at the one given.
func (f *far) serve(t *testing.T, addr string) *far {
	t.Helper()
	var l net.Listener
	eventually(t, "the address is free", func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		return err
	})
	f.addr, f.server = l.Addr().String(), grpc.NewServer()
	pb.RegisterGateServiceServer(f.server, f)
	h := health.NewServer()
	healthpb.RegisterHealthServer(f.server, h)
	done := make(chan struct{})
	go func() { defer close(done); _ = f.server.Serve(l) }()
	t.Cleanup(func() { f.server.Stop(); <-done })
	return f
}

func good(t *testing.T) *far {
	t.Helper()
	f := &far{}
	f.ask = f.answering(echo)
	return f.serve(t, "127.0.0.1:0")
}

// open opens a gate with a generous deadline, or with the one given.
func open(t *testing.T, f *far, deadline ...time.Duration) *gate.Gate {
	t.Helper()
	cfg := coresdk.Config{Addr: f.addr, Dev: true, Timeout: time.Minute, ConnectTimeout: time.Minute}
	if len(deadline) > 0 {
		cfg.Timeout = deadline[0]
	}
	g, err := gate.Open(t.Context(), cfg, time.Now)
	noError(t, err)
	t.Cleanup(func() { _ = g.Close() })
	return g
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s: %v", what, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// unavailable checks for the guide's 401 with the code that says why.
func unavailable(t *testing.T, c med.Caller, err error) {
	t.Helper()
	if c.Subject != "" || len(c.Roles) > 0 {
		t.Error("a caller came with the refusal")
	}
	if med.KindOf(err) != med.Unauthorized || med.CodeOf(err) != "sidecar_unavailable" {
		t.Errorf("got %v, want unauthorized with the code sidecar_unavailable", err)
	}
}

func TestQuestionsTravelTogether(t *testing.T) {
	t.Parallel()
	const askers = 600
	release := make(chan struct{})
	f := &far{}
	f.ask = f.answering(func(q *pb.Question) *pb.Answer { <-release; return echo(q) })
	g := open(t, f.serve(t, "127.0.0.1:0"))
	var begun, all sync.WaitGroup
	begun.Add(askers)
	for i := range askers {
		all.Go(func() {
			begun.Done()
			tok := fmt.Sprint("t", i)
			if c, err := g.Who(t.Context(), med.Credential(tok)); err != nil || c.Subject != tok {
				t.Errorf("asker %d got %q, %v", i, c.Subject, err)
			}
		})
	}
	begun.Wait() // the first is held up, the others gather
	close(release)
	all.Wait()
	if n := f.questions.Load(); n != askers {
		t.Errorf("%d questions were asked, want %d: no answer is remembered, none asked twice", n, askers)
	}
	if n := f.messages.Load(); n > askers/6 {
		t.Errorf("%d messages for %d questions", n, askers)
	}
	if n := f.streams.Load(); n != 1 {
		t.Errorf("%d streams, want 1", n)
	}
}

func TestNoAnswerIsRemembered(t *testing.T) {
	t.Parallel()
	f := good(t)
	g := open(t, f)
	for range 3 {
		_, err := g.Who(t.Context(), "same")
		noError(t, err)
	}
	if n := f.questions.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	noError(t, g.Healthy(t.Context()))
	if n := f.questions.Load(); n != 4 {
		t.Error("health was not asked for")
	}
}

// Whatever the order, whoever gives up, and whenever the stream breaks: who
// gets an answer gets their own.
func TestEveryAnswerIsItsAskersOwn(t *testing.T) {
	t.Parallel()
	f := &far{}
	f.ask = func(s pb.GateService_AskServer) error {
		var held []*pb.Answer
		for n := 0; ; n++ {
			m, err := f.receive(s)
			if err != nil {
				return err
			}
			for _, q := range m.GetQuestions() {
				held = append(held, echo(q), echo(q)) // each twice: the second is nobody's
			}
			rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			now := held
			if n%3 == 0 { // some come with a later message
				now, held = held[:len(held)/2], held[len(held)/2:]
			} else {
				held = nil
			}
			if err := s.Send(&pb.Answers{Answers: now, At: time.Now().UnixMilli()}); err != nil {
				return err
			}
			if rand.IntN(40) == 0 {
				return errors.New("broken")
			}
		}
	}
	g := open(t, f.serve(t, "127.0.0.1:0"), 200*time.Millisecond)
	var own, none atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range 40 {
		all.Go(func() {
			// Sixty times, and until there was some of both: a busy machine can break the stream when nobody waits.
			for j := 0; j < 60 || (own.Load() == 0 || none.Load() == 0) && time.Since(began) < time.Minute; j++ {
				ctx, cancel := context.WithCancel(t.Context())
				if rand.IntN(4) == 0 {
					go cancel()
				}
				tok := fmt.Sprintf("t-%d-%d", i, j)
				c, err := g.Who(ctx, med.Credential(tok))
				switch {
				case err == nil && c.Subject == tok && c.Credential.Reveal() == tok:
					own.Add(1)
				case err == nil:
					t.Errorf("%s got the answer of %s", tok, c.Subject)
				case med.CodeOf(err) == "cancelled" && ctx.Err() == nil:
					t.Error("cancelled, says the gate; it was not")
				case med.CodeOf(err) == "cancelled" && c.Subject == "":
				default:
					unavailable(t, c, err)
					none.Add(1)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if own.Load() == 0 || none.Load() == 0 {
		t.Errorf("%d answered, %d refused: want some of both, or nothing was tried", own.Load(), none.Load())
	}
}

func TestABrokenStreamRefusesWhoWaitsAndTheNextOpensAnother(t *testing.T) {
	t.Parallel()
	var whole atomic.Bool
	f := &far{}
	broken := make(chan struct{})
	f.ask = func(s pb.GateService_AskServer) error {
		if whole.Load() {
			return f.answering(echo)(s)
		}
		if _, err := f.receive(s); err != nil {
			return err
		}
		<-broken
		return status.Error(codes.Internal, "broken")
	}
	g := open(t, f.serve(t, "127.0.0.1:0"))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			begin := time.Now()
			c, err := g.Who(t.Context(), "t")
			unavailable(t, c, err)
			if took := time.Since(begin); took > 50*time.Second { // their deadline is a minute
				t.Errorf("refused after %s: the break was not noticed", took)
			}
		})
	}
	eventually(t, "a question arrives", func() error {
		if f.questions.Load() == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	close(broken)
	all.Wait()
	whole.Store(true)
	if c, err := g.Who(t.Context(), "t"); err != nil || c.Subject != "t" {
		t.Errorf("the next: got %q, %v", c.Subject, err)
	}
	if f.streams.Load() < 2 {
		t.Error("no other stream was opened")
	}
}

// Not parallel: it counts this package's goroutines.
func TestASidecarThatNeverAnswers(t *testing.T) {
	before := gateGoroutines()
	const deadline = 300 * time.Millisecond
	var awake atomic.Bool
	f := &far{}
	f.ask = func(s pb.GateService_AskServer) error {
		if awake.Load() {
			return f.answering(echo)(s)
		}
		<-s.Context().Done() // takes the stream, and nothing from it
		return s.Context().Err()
	}
	g := open(t, f.serve(t, "127.0.0.1:0"), deadline)
	var late atomic.Int64
	var all sync.WaitGroup
	for range 6000 { // more than any queue holds
		all.Go(func() {
			begin := time.Now()
			c, err := g.Who(t.Context(), "t")
			unavailable(t, c, err)
			if time.Since(begin) > deadline+time.Minute {
				late.Add(1)
			}
		})
	}
	all.Wait()
	if n := late.Load(); n > 0 {
		t.Errorf("%d were refused long after their deadline of %s", n, deadline)
	}
	if _, err := g.May(t.Context(), &med.Caller{Credential: "t"}, gate.Ask{Action: "read", Resource: "patient", Patient: "p"}); med.CodeOf(err) != "sidecar_unavailable" {
		t.Errorf("May: %v", err)
	}
	if _, err := g.Serve(t.Context(), &med.Caller{}, "import", "north"); med.CodeOf(err) != "sidecar_unavailable" {
		t.Errorf("Serve: %v", err)
	}
	if err := g.Healthy(t.Context()); err == nil {
		t.Error("healthy")
	}
	// A stream that hangs is given up: when the sidecar can answer again, on a
	// new one, it is asked again.
	awake.Store(true)
	eventually(t, "served again", func() error { _, err := g.Who(t.Context(), "t"); return err })

	noError(t, g.Close())
	eventually(t, "no goroutine is left", func() error {
		if n := gateGoroutines(); n > before {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
}

// gateGoroutines counts the goroutines that are in the gate.
func gateGoroutines() int {
	buf := make([]byte, 16<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "internal/gate.(*")
}

func TestAClosedGateRefuses(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	f := &far{}
	f.ask = f.answering(func(q *pb.Question) *pb.Answer {
		if q.GetWho().GetToken() == "held" {
			<-hold
		}
		return echo(q)
	})
	defer close(hold)
	g := open(t, f.serve(t, "127.0.0.1:0"))
	refused := make(chan error, 1)
	go func() { _, err := g.Who(t.Context(), "held"); refused <- err }()
	eventually(t, "a question is under way", func() error {
		if f.questions.Load() == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	noError(t, g.Close())
	unavailable(t, med.Caller{}, <-refused)
	c, err := g.Who(t.Context(), "t")
	unavailable(t, c, err)
}

func TestARestartedSidecarIsAskedAgain(t *testing.T) {
	t.Parallel()
	f := good(t)
	g := open(t, f, 30*time.Second)
	_, err := g.Who(t.Context(), "t")
	noError(t, err)
	f.server.Stop()
	c, err := g.Who(t.Context(), "t")
	unavailable(t, c, err)
	next := &far{}
	next.ask = next.answering(echo)
	next.serve(t, f.addr)
	eventually(t, "served again", func() error { _, err := g.Who(t.Context(), "t"); return err })
	if next.questions.Load() == 0 {
		t.Error("the answer came from nowhere")
	}
}

// One question that cannot be sent is its asker's misfortune, not everybody's.
func TestAQuestionThatCannotBeSentRefusesItselfOnly(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := &far{}
	f.ask = f.answering(func(q *pb.Question) *pb.Answer { <-release; return echo(q) })
	g := open(t, f.serve(t, "127.0.0.1:0"))
	var begun, all sync.WaitGroup
	ask := func(tok string, served bool) {
		begun.Add(1)
		all.Go(func() {
			begun.Done()
			_, err := g.Who(t.Context(), med.Credential(tok))
			switch {
			case served && err != nil:
				t.Errorf("an innocent question was refused: %v", err)
			case !served && (med.KindOf(err) != med.Unauthorized || med.CodeOf(err) == "sidecar_unavailable"):
				t.Errorf("got %v, want unauthorized: the sidecar is well", err)
			}
		})
	}
	for i := range 40 {
		ask(fmt.Sprint("t", i), true)
		ask("bad \xff\xfe utf-8", false)
		ask(strings.Repeat("a", 2<<20), false)
	}
	// As long as a token may be, and so many that they would not fit into one
	// message together.
	for range 130 {
		ask(strings.Repeat("b", 16<<10), true)
	}
	begun.Wait()
	close(release)
	all.Wait()
	if n := f.streams.Load(); n != 1 {
		t.Errorf("%d streams, want 1: it broke", n)
	}
}

func TestOpenWantsASidecarThatServesAndIsProtected(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config func(t *testing.T) coresdk.Config
		says   string
	}{
		"nobody there": {func(t *testing.T) coresdk.Config {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			noError(t, err)
			defer func() { _ = l.Close() }()
			return coresdk.Config{Addr: l.Addr().String(), Dev: true}
		}, "unavailable"},
		"somebody who accepts and says nothing": {func(t *testing.T) coresdk.Config {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			noError(t, err)
			t.Cleanup(func() { _ = l.Close() })
			return coresdk.Config{Addr: l.Addr().String(), Dev: true}
		}, "unavailable"},
		"plaintext outside dev": {func(t *testing.T) coresdk.Config {
			return coresdk.Config{Addr: good(t).addr}
		}, "plaintext"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := tc.config(t)
			cfg.ConnectTimeout = 300 * time.Millisecond
			g, err := gate.Open(t.Context(), cfg, time.Now)
			if g != nil || err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// rules.md, section 3: red above two seconds, which readiness tells by Skew, and
// closed above thirty.
func TestClocksFarApartCloseTheGate(t *testing.T) {
	t.Parallel()
	for ahead, closed := range map[time.Duration]bool{0: false, 20 * time.Second: false, -20 * time.Second: false, time.Minute: true, -time.Minute: true} {
		f := &far{ahead: ahead}
		f.ask = f.answering(echo)
		f.serve(t, "127.0.0.1:0")
		g := open(t, f)
		_, err := g.Who(t.Context(), "x")
		if got := med.CodeOf(err) == "sidecar_unavailable"; got != closed {
			t.Errorf("%s apart: got %v", ahead, err)
		}
		if got := g.Skew(); (got - ahead.Abs()).Abs() > 15*time.Second {
			t.Errorf("%s apart: told as %s", ahead, got)
		}
	}
}
