// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

func TestWho(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	signedIn := w.clock.Now().Add(-20 * time.Minute)
	a := w.one(t, who(w.token(t, claims{
		"sub": "dr-1", "roles": []string{"provider", "break_glass"}, "patient_id": "p-9", "sid": "s-1", "jti": "j-1", "auth_time": signedIn.Unix(),
	})))
	c := a.GetCaller()
	if c.GetIssuer() != issuer || c.GetSubject() != "dr-1" || !slices.Equal(c.GetRoles(), []string{"clinician", "break_glass"}) || c.GetPracticeId() != "north" ||
		c.GetPatientId() != "p-9" || c.GetMfa() != "done" || c.GetMfaAt() != signedIn.Unix() || c.GetAuthTime() != signedIn.Unix() ||
		c.GetSession() != "s-1" || c.GetTokenId() != "j-1" || c.GetExpiresAt() == 0 {
		t.Errorf("got %v", c)
	}
	if c := w.one(t, who(w.token(t, claims{"auth_time": nil, "mfa_verified": nil}))).GetCaller(); c.GetMfa() != "none" || c.GetMfaAt() != 0 || c.GetAuthTime() != 0 {
		t.Errorf("a token that does not say: got %v", c)
	}
	refusedWith(t, w.one(t, who("")), "unauthenticated", "no_token")
	refusedWith(t, w.one(t, who("garbage")), "unauthenticated", "malformed")
	refusedWith(t, w.one(t, who(w.token(t, claims{"exp": w.clock.unix(-time.Hour)}))), "unauthenticated", "expired")
}

// What each role gets for each relation, and the context it gets it with.
func TestContextsSayWhatTheTokenAndTheQuestionSay(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	const other = "other_practice"
	for _, tc := range []struct {
		name    string
		claim   claims
		ask     *pb.May
		allowed string // relations, sorted
		context token.Context
	}{
		{"a clinician", claims{"roles": []string{"provider"}}, nil, "same_practice self", token.Context{Roles: []string{"clinician"}, Practice: "north", Action: "patient.read", Patient: "p-001"}},
		{"a nurse", claims{"roles": []string{"nurse"}}, nil, "same_practice self", token.Context{Roles: []string{"nurse"}, Practice: "north", Action: "patient.read", Patient: "p-001"}},
		{"an admin with a second factor", claims{"roles": []string{"admin"}}, nil, "same_practice self", token.Context{Roles: []string{"admin"}, Practice: "north", Action: "patient.read", Patient: "p-001", Admin: true}},
		{"a nurse who is a patient here", claims{"roles": []string{"nurse", "patient"}, "patient_id": "p-001"}, nil, "same_practice self", token.Context{Roles: []string{"patient", "nurse"}, Practice: "north", Action: "patient.read", Patient: "p-001", Self: "p-001"}},
		{"a patient, about anybody", claims{"roles": []string{"patient"}, "patient_id": "p-002"}, nil, "self", token.Context{Roles: []string{"patient"}, Practice: "north", Action: "patient.read", Patient: "p-001", Self: "p-002"}},
		{"a patient without a second factor", claims{"roles": []string{"patient"}, "patient_id": "p-001", "mfa_verified": nil}, nil, "self", token.Context{Roles: []string{"patient"}, Practice: "north", Action: "patient.read", Patient: "p-001", Self: "p-001"}},
		{"an admin reads the trail", claims{"roles": []string{"admin"}}, &pb.May{Action: "read", ResourceType: "audit"}, "same_practice self", token.Context{Roles: []string{"admin"}, Practice: "north", Action: "audit.read", Patient: "p-001", Admin: true}},
		{"an officer reads the trail", claims{"roles": []string{"officer"}}, &pb.May{Action: "read", ResourceType: "audit"}, "same_practice self", token.Context{Roles: []string{"officer"}, Practice: "north", Action: "audit.read", Patient: "p-001"}},
		// Only the database knows whether it is their own record (patient_link): it opens nothing else to these two.
		{"an officer", claims{"roles": []string{"officer"}}, nil, "self", token.Context{Roles: []string{"officer"}, Practice: "north", Action: "patient.read", Patient: "p-001"}},
		{"break-glass without a reason", claims{"roles": []string{"break_glass"}, "practice_id": nil}, nil, "self", token.Context{Roles: []string{"break_glass"}, Action: "patient.read", Patient: "p-001"}},
		{"an admin without a second factor", claims{"roles": []string{"admin"}, "mfa_verified": nil}, nil, "", token.Context{}},
		{"a nurse deletes nothing", claims{"roles": []string{"nurse"}}, &pb.May{Action: "delete", ResourceType: "patient"}, "", token.Context{}},
		{"an action nobody named", claims{"roles": []string{"admin"}}, &pb.May{Action: "fly", ResourceType: "patient"}, "", token.Context{}},
		{"no action at all", claims{"roles": []string{"admin"}}, &pb.May{}, "", token.Context{}},
		{"a service's action", claims{"roles": []string{"admin"}}, &pb.May{Action: "import", ResourceType: "patient"}, "", token.Context{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := claims{"sid": "s-1"}
			for k, v := range tc.claim {
				c[k] = v
			}
			ask := &pb.May{Action: "read", ResourceType: "patient"}
			if tc.ask != nil {
				ask = tc.ask
			}
			ask.Token, ask.PatientId = w.token(t, c), "p-001"
			r := w.one(t, &pb.Question{Ask: &pb.Question_May{May: ask}}).GetRuling()
			if r == nil {
				t.Fatal("no ruling")
			}
			var allowed []string
			for _, rel := range med.Relations {
				d := saidOf(r).GetDecisions()[string(rel)]
				if d == nil {
					t.Fatalf("no decision for %s", rel)
				}
				if d.GetAllow() {
					allowed = append(allowed, string(rel))
				} else if len(d.GetReveal())+len(d.GetMask())+len(d.GetWrite()) > 0 || d.GetReasonCode() == "" {
					t.Errorf("the denial for %s carries fields, or no reason: %v", rel, d)
				}
			}
			slices.Sort(allowed)
			if got := strings.Join(allowed, " "); got != tc.allowed {
				t.Errorf("allowed: got %q, want %q", got, tc.allowed)
			}
			if r.GetRevision() != medtest.Policy(t).Revision() || r.GetGrant() != nil {
				t.Errorf("revision %s, grant %v", r.GetRevision(), r.GetGrant())
			}
			if tc.allowed == "" { // denied whatever the relation: nothing to open a door with
				if r.GetContext() != "" || r.GetNonce() != "" || r.GetMac() != "" {
					t.Error("a context was minted for a denial")
				}
				return
			}
			got := contextOf(t, w, r)
			if left := time.UnixMilli(got.Expires).Sub(w.clock.Now()); left > 10*time.Second || left < 0 {
				t.Errorf("the context lives %s, want at most 10 s", left)
			}
			if got.Nonce == "" || got.Nonce != r.GetNonce() || !strings.HasPrefix(r.GetMac(), "e1.test1.") || !strings.Contains(r.GetMac(), "."+got.Action+".") {
				t.Error("nonce and MAC for the trail are not the context's")
			}
			want := tc.context
			want.Issuer, want.Subject, want.Session, want.Nonce, want.Expires = issuer, "somebody", "s-1", got.Nonce, got.Expires
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("context: got %+v, want %+v", got, want)
			}
		})
	}
	t.Run("two contexts of one question differ", func(t *testing.T) {
		t.Parallel()
		tok := w.of(t, med.RoleClinician)
		as := w.ask(t, &pb.Question{Id: 1, Ask: may(tok, "p-001").GetAsk()}, &pb.Question{Id: 2, Ask: may(tok, "p-001").GetAsk()})
		if as[1].GetRuling().GetNonce() == as[2].GetRuling().GetNonce() {
			t.Error("two contexts share a nonce")
		}
	})
	t.Run("fields of the view", func(t *testing.T) {
		t.Parallel()
		self := saidOf(w.one(t, may(w.token(t, claims{"roles": []string{"patient"}, "patient_id": "p-001"}), "p-001")).GetRuling()).GetDecisions()["self"]
		if !slices.Equal(self.GetMask(), []string{"dob", "ssn"}) || slices.Contains(self.GetReveal(), "diagnosis") || !slices.Contains(self.GetReveal(), "name") || len(self.GetWrite()) > 0 {
			t.Errorf("the patient's view: %v", self)
		}
		if d := saidOf(w.one(t, may(w.of(t, med.RoleClinician), "p-001")).GetRuling()).GetDecisions()[other]; d.GetAllow() || d.GetReasonCode() != "other_practice" {
			t.Errorf("a clinician elsewhere: %v", d)
		}
	})
	for _, id := range []string{"", "*", "p 1", "p/1", strings.Repeat("a", 65), "p\x00", "é"} {
		refusedWith(t, w.one(t, may(w.of(t, med.RoleAdmin), id)), "invalid", "patient_id")
	}
	refusedWith(t, w.one(t, may("", "p-001")), "unauthenticated", "no_token")
}

// Whether a context is strict is the sidecar's to say, and the ruling tells.
func TestStrictContexts(t *testing.T) {
	t.Parallel()
	lax, strict := start(t, options{}), start(t, options{strict: true})
	ask := func(w *world, role med.Role, action, resource string) *pb.Question {
		return &pb.Question{Ask: &pb.Question_May{May: &pb.May{Token: w.of(t, role), Action: action, ResourceType: resource, PatientId: "p-001"}}}
	}
	for _, tc := range []struct {
		name           string
		ask            func(*world) *pb.Question
		always, strict bool // by default; with StrictReads
	}{
		{"a clinician reads", func(w *world) *pb.Question { return may(w.of(t, med.RoleClinician), "p-001") }, false, true},
		{"a patient reads", func(w *world) *pb.Question {
			return may(w.token(t, claims{"roles": []string{"patient"}, "patient_id": "p-001"}), "p-001")
		}, false, true},
		{"broken glass", func(w *world) *pb.Question { return emergency(w.er(t, claims{}), "p-001") }, true, true},
		{"an admin reads the trail", func(w *world) *pb.Question { return ask(w, med.RoleAdmin, "read", "audit") }, false, false},
		{"an officer reads what was disclosed", func(w *world) *pb.Question { return ask(w, med.RoleOfficer, "read", "disclosure") }, false, true},
		{"an export of a patient", func(w *world) *pb.Question { return ask(w, med.RoleClinician, "patient", "export") }, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for w, want := range map[*world]bool{lax: tc.always, strict: tc.strict} {
				r := w.one(t, tc.ask(w)).GetRuling()
				if r.GetContext() == "" {
					t.Fatalf("no context: %v", r)
				}
				if c := contextOf(t, w, r); c.Strict != want || r.GetStrict() != want {
					t.Errorf("StrictReads %v: the context says %v, the ruling %v, want %v", w == strict, c.Strict, r.GetStrict(), want)
				}
			}
		})
	}
}

func TestServiceContextsAreForOneActionOnOnePractice(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	gates := map[string]pb.GateServiceClient{"": w.gate}
	for name, tok := range serviceTokens {
		gates[name] = pb.NewGateServiceClient(connect(t, w.addr, tok))
	}
	gates["a wrong token"] = pb.NewGateServiceClient(connect(t, w.addr, "import-toke"))
	for _, tc := range []struct {
		service, action, practice string
		code, detail              string // of the refusal
	}{
		{"import", "import", "north", "", ""},
		{"worker", "sweep", "north", "", ""},
		{"worker", "practice.list", "", "", ""},
		{"operator", "practice.add", "south", "", ""},
		{"operator", "practice.list", "ignored", "", ""},
		{"", "import", "north", "unauthenticated", "no_service"},
		{"a wrong token", "import", "north", "unauthenticated", "no_service"},
		{"import", "sweep", "north", "denied", "service_action"},
		{"import", "practice.add", "north", "denied", "service_action"},
		{"import", "patient.read", "north", "denied", "service_action"},
		{"worker", "import", "north", "denied", "service_action"},
		{"operator", "import", "north", "denied", "service_action"},
		{"import", "", "north", "denied", "service_action"},
		{"import", "import", "", "invalid", "practice_id"},
		{"import", "import", "*", "invalid", "practice_id"},
		{"import", "import", "north south", "invalid", "practice_id"},
	} {
		t.Run(fmt.Sprintf("%s: %s of %q", tc.service, tc.action, tc.practice), func(t *testing.T) {
			t.Parallel()
			q := serveQ(tc.action, tc.practice)
			q.Id, q.GetServe().OnBehalfOf = 7, "root"
			a := askOn(t, gates[tc.service], q)[7]
			if tc.code != "" {
				refusedWith(t, a, tc.code, tc.detail)
				return
			}
			got := contextOf(t, w, a.GetRuling())
			left := time.UnixMilli(got.Expires).Sub(w.clock.Now())
			if left > 60*time.Second || left < 10*time.Second {
				t.Errorf("the context lives %s, want a minute at most", left)
			}
			want := token.Context{
				Issuer: "medirecord", Subject: "service:" + tc.service, Roles: []string{"service:" + tc.service}, Service: tc.service, Action: tc.action,
				Nonce: got.Nonce, Expires: got.Expires,
			}
			if tc.action != "practice.list" {
				want.Practice, want.Patient = med.PracticeID(tc.practice), "*"
			}
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("context: got %+v, want %+v", got, want)
			}
			// A token beside the service's own question gives it nothing more.
			refusedWith(t, askOn(t, gates[tc.service], &pb.Question{Id: 1, Ask: who("").GetAsk()})[1], "unauthenticated", "no_token")
		})
	}
}

func TestAStreamSurvivesWhateverIsAsked(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	good := who(w.of(t, med.RoleNurse))
	good.Id = math.MaxUint64
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := w.gate.Ask(ctx)
	noError(t, err)
	exchange := func(qs ...*pb.Question) []*pb.Answer {
		t.Helper()
		noError(t, stream.Send(&pb.Questions{Questions: qs}))
		m, err := stream.Recv()
		noError(t, err)
		if len(m.GetAnswers()) != len(qs) {
			t.Fatalf("%d answers to %d questions", len(m.GetAnswers()), len(qs))
		}
		return m.GetAnswers()
	}
	if as := exchange(); len(as) != 0 {
		t.Error("answers to no question")
	}
	refusedWith(t, exchange(&pb.Question{Id: 3})[0], "invalid", "unknown_question")
	refusedWith(t, exchange(&pb.Question{Id: 3, Ask: &pb.Question_Who{}})[0], "unauthenticated", "no_token")
	refusedWith(t, exchange(&pb.Question{Id: 3, Ask: &pb.Question_May{}})[0], "unauthenticated", "no_token")
	refusedWith(t, exchange(&pb.Question{Id: 3, Ask: &pb.Question_Serve{}})[0], "unauthenticated", "no_service")
	if a := exchange(good)[0]; a.GetId() != math.MaxUint64 || a.GetCaller() == nil {
		t.Errorf("the largest id: got %v", a)
	}
	// The bound holds, and who is within it is answered.
	many := make([]*pb.Question, 300)
	for i := range many {
		many[i] = &pb.Question{Id: uint64(i), Ask: good.GetAsk()} //nolint:gosec // small
	}
	for i, a := range exchange(many...) {
		if a.GetId() != uint64(i) { //nolint:gosec // small
			t.Fatalf("answer %d has id %d", i, a.GetId())
		}
		if i < 256 && a.GetCaller() == nil {
			t.Fatalf("question %d: got %v", i, a)
		}
		if i >= 256 {
			refusedWith(t, a, "invalid", "too_many_questions")
		}
	}
	// Too large a message ends the stream, and no other.
	noError(t, stream.Send(&pb.Questions{Questions: []*pb.Question{who(strings.Repeat("a", 2<<20))}}))
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("2 MiB: got %v, want ResourceExhausted", err)
	}
	if w.one(t, good).GetCaller() == nil {
		t.Error("the next stream is not served")
	}
}

// Questions are answered by one policy each, the old one or the new one.
func TestPolicyChangesUnderQuestions(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	before, after := medtest.Policy(t), openPolicy(t)
	shows := map[string]bool{before.Revision(): false, after.Revision(): true}
	tok := w.of(t, med.RoleNurse)
	var stop atomic.Bool
	var seen sync.Map
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for !stop.Load() {
				r := w.one(t, may(tok, "p-001")).GetRuling()
				ssn := slices.Contains(saidOf(r).GetDecisions()["same_practice"].GetReveal(), "ssn")
				if want, known := shows[r.GetRevision()]; !known || ssn != want {
					t.Errorf("revision %s shows the SSN: %v", r.GetRevision(), ssn)
					return
				}
				seen.Store(r.GetRevision(), true)
			}
		})
	}
	count := func() (n int) {
		seen.Range(func(any, any) bool { n++; return true })
		return n
	}
	for _, e := range []*policy.Engine{after, before, after} {
		seen.Clear()
		w.engine.Store(e)
		eventually(t, "the new policy in an answer", func() bool { _, ok := seen.Load(e.Revision()); return ok || t.Failed() })
	}
	stop.Store(true)
	askers.Wait()
	if count() == 0 {
		t.Error("nothing was asked")
	}
}

func TestAPanicIsANo(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	w := start(t, options{engine: func() *policy.Engine {
		if broken.Load() {
			return nil // what a bug in the watcher would look like
		}
		return medtest.Policy(t)
	}})
	tok := w.of(t, med.RoleClinician)
	if w.one(t, may(tok, "p-001")).GetRuling() == nil {
		t.Fatal("no ruling before")
	}
	broken.Store(true)
	stream, err := w.gate.Ask(t.Context())
	noError(t, err)
	noError(t, stream.Send(&pb.Questions{Questions: []*pb.Question{may(tok, "p-001")}}))
	if a, err := stream.Recv(); status.Code(err) != codes.Internal || status.Convert(err).Message() != "internal error" {
		t.Errorf("Ask: got %v, %v; want an internal error that says nothing", a, err)
	}
	if a, err := w.evaluate(t, "data.medirecord.allow", "{"+readPatient+"}", "Bearer "+tok); status.Code(err) != codes.Internal {
		t.Errorf("Evaluate: got %v, %v; want an internal error", a, err)
	}
	broken.Store(false)
	if w.one(t, may(tok, "p-001")).GetRuling() == nil {
		t.Error("no ruling after: the sidecar did not survive")
	}
	if log := w.log.String(); !strings.Contains(log, `"msg":"panic"`) || !strings.Contains(log, "sidecar.(*Service).may") {
		t.Error("the log does not say where: " + log)
	}
}

func TestATokenWithoutAPracticeMeansTheOnlyOne(t *testing.T) {
	t.Parallel()
	w := start(t, options{home: "north"})
	tok := w.token(t, claims{"practice_id": nil})
	one := func(q *pb.Question) *pb.Answer { return w.one(t, q) }
	operator := func() pb.GateServiceClient { return pb.NewGateServiceClient(connect(t, w.addr, "operator-token")) }
	add := func(practice string) {
		t.Helper()
		q := serveQ("practice.add", practice)
		if askOn(t, operator(), q)[0].GetRuling() == nil {
			t.Fatal("no context to add a practice")
		}
	}
	// A state that was lost knows of no practice either.
	refusedWith(t, one(who(tok)), "unauthenticated", "no_practice")
	add("north")
	if c := one(who(tok)).GetCaller(); c.GetPracticeId() != "north" {
		t.Errorf("the only practice: got %v", c)
	}
	w.restart(t)
	if c := one(who(tok)).GetCaller(); c.GetPracticeId() != "north" {
		t.Errorf("the only practice, after a restart: got %v", c)
	}
	add("south")
	refusedWith(t, one(who(tok)), "unauthenticated", "no_practice") // though it was remembered
	refusedWith(t, one(may(tok, "p-001")), "unauthenticated", "no_practice")
	w.restart(t)
	refusedWith(t, one(who(tok)), "unauthenticated", "no_practice")
	if c := w.one(t, who(w.of(t, med.RoleNurse))).GetCaller(); c.GetPracticeId() != "north" {
		t.Errorf("a token that names its practice: got %v", c)
	}
	t.Run("another practice than the default was added", func(t *testing.T) {
		t.Parallel()
		w := start(t, options{home: "north"})
		q := serveQ("practice.add", "south")
		if askOn(t, pb.NewGateServiceClient(connect(t, w.addr, "operator-token")), q)[0].GetRuling() == nil {
			t.Fatal("no context to add a practice")
		}
		refusedWith(t, w.one(t, who(w.token(t, claims{"practice_id": nil}))), "unauthenticated", "no_practice")
	})
}

// An issuer that does not answer must not hold up who shows a token that is
// known: all questions of an API travel on one stream.
func TestASilentIssuerHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.of(t, med.RoleNurse)
	if w.one(t, who(tok)).GetCaller() == nil {
		t.Fatal("refused before")
	}
	w.silence.Store(true)
	unknown := strings.Split(tok, ".")
	unknown[0] = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsyIiwidHlwIjoiSldUIn0" // kid k2
	bad := strings.Join(unknown, ".")

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := w.gate.Ask(ctx)
	noError(t, err)
	var qs []*pb.Question
	for i := range uint64(20) {
		qs = append(qs, &pb.Question{Id: i, Ask: who(bad).GetAsk()})
	}
	noError(t, stream.Send(&pb.Questions{Questions: append(qs, &pb.Question{Id: 100, Ask: who(tok).GetAsk()})}))
	noError(t, stream.Send(&pb.Questions{Questions: []*pb.Question{{Id: 101, Ask: who(tok).GetAsk()}}}))
	got := map[uint64]*pb.Answer{}
	var at int64 // when the last were answered, by the sidecar's clock
	for got[101] == nil {
		m, err := stream.Recv()
		noError(t, err)
		at = m.GetAt()
		for _, a := range m.GetAnswers() {
			got[a.GetId()] = a
		}
	}
	if end := w.gaveUp.Load(); !w.waiting.Load() || end != 0 && end < at {
		t.Error("all waited until the issuer was given up: by then the API has refused everybody")
	}
	for _, id := range []uint64{100, 101} {
		if got[id].GetCaller() == nil {
			t.Errorf("question %d: got %v, want a caller", id, got[id])
		}
	}
	refusedWith(t, got[0], "unauthenticated", "unknown_key")
}

// A question without a patient is about the caller's practice, and there is one.
func TestOnlyTheTrailIsAskedForAPractice(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ask := func(tok, resource, action string) *pb.Answer {
		return w.one(t, &pb.Question{Ask: &pb.Question_May{May: &pb.May{Token: tok, Action: action, ResourceType: resource}}})
	}
	for role, want := range map[med.Role]string{
		med.RoleAdmin: "permitted", med.RoleOfficer: "permitted", med.RoleClinician: "role", med.RoleNurse: "role", med.RoleBreakGlass: "role", med.RolePatient: "not_self",
	} {
		r := ask(w.of(t, role), "audit", "read").GetRuling()
		d := saidOf(r).GetDecisions()["same_practice"]
		if d.GetReasonCode() != want || d.GetAllow() != (want == "permitted") || d.GetAllow() != (r.GetContext() != "") || len(saidOf(r).GetDecisions()) != 1 {
			t.Errorf("%s: got %v, want %s", role, r, want)
		}
		if !d.GetAllow() {
			continue
		}
		c := contextOf(t, w, r)
		if c.Patient != "" || c.Practice != "north" || c.Action != "audit.read" || c.Admin != (role == med.RoleAdmin) {
			t.Errorf("%s: context %+v", role, c)
		}
	}
	noMFA := ask(w.token(t, claims{"roles": []string{"admin"}, "mfa_verified": nil}), "audit", "read").GetRuling()
	if d := saidOf(noMFA).GetDecisions()["same_practice"]; d.GetReasonCode() != "mfa_required" || noMFA.GetContext() != "" {
		t.Errorf("an admin without a second factor: got %v", noMFA)
	}
	found := ask(w.of(t, med.RoleNurse), "patient", "search").GetRuling()
	if c := contextOf(t, w, found); c.Patient != "" || c.Practice != "north" || c.Action != "patient.search" || c.MaxRows != 200 || c.Strict {
		t.Errorf("a search: context %+v", c)
	}
	for _, other := range [][2]string{{"patient", "read"}, {"patient", "create"}, {"record", "read"}, {"audit", "write"}, {"export", "bulk"}, {"", ""}} {
		refusedWith(t, ask(w.of(t, med.RoleAdmin), other[0], other[1]), "invalid", "patient_id")
	}
	refusedWith(t, w.one(t, &pb.Question{Ask: &pb.Question_May{May: &pb.May{
		Token: w.of(t, med.RoleBreakGlass), Action: "read", ResourceType: "audit", Emergency: &pb.Emergency{ReasonCode: "other"},
	}}}), "invalid", "patient_id")
}
