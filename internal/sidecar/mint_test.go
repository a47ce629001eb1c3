// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// mayFor is may for a call that will leave the entry.
func mayFor(tok, patient, event string) *pb.Question {
	q := may(tok, patient)
	q.GetMay().EventId = event
	return q
}

// worker is the gate as service:worker sees it.
func (w *world) worker(t *testing.T) pb.GateServiceClient {
	t.Helper()
	return pb.NewGateServiceClient(connect(t, w.addr, serviceTokens["worker"]))
}

// feed opens the feed of what was minted and returns its first message.
func feed(t *testing.T, g pb.GateServiceClient) (pb.GateService_MintedClient, *pb.Mints) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	f, err := g.Minted(ctx)
	noError(t, err)
	m, err := f.Recv()
	noError(t, err)
	return f, m
}

// until receives until so many mints came.
func until(t *testing.T, f pb.GateService_MintedClient, first *pb.Mints, n int) []*pb.Mint {
	t.Helper()
	out := first.GetMints()
	for len(out) < n {
		m, err := f.Recv()
		noError(t, err)
		out = append(out, m.GetMints()...)
	}
	return out
}

func TestWhatIsMintedForPersonsIsTold(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	event := med.NewUUID(time.Now())
	r := w.one(t, mayFor(w.of(t, med.RoleClinician), "p-1", event)).GetRuling()
	denied := mayFor(w.of(t, med.RoleNurse), "p-1", event)
	denied.GetMay().Action = "export" // nothing is minted
	w.one(t, denied)
	askOn(t, pb.NewGateServiceClient(connect(t, w.addr, serviceTokens["import"])), serveQ("import", "north"))
	f, first := feed(t, w.worker(t))
	m := until(t, f, first, 1)[0]
	if m.GetNumber() != 1 || m.GetNonce() != r.GetNonce() || m.GetEventId() != event || m.GetIssuer() != issuer || m.GetSubject() != "the-clinician" ||
		m.GetPracticeId() != "north" || m.GetPatientId() != "p-1" || m.GetAction() != "patient.read" || time.Since(time.UnixMilli(m.GetAt())) > time.Minute {
		t.Errorf("got %v", m)
	}
	if first.GetLife() == "" || first.GetLost() != 0 {
		t.Errorf("got life %q, lost %d", first.GetLife(), first.GetLost())
	}

	again := w.one(t, mayFor(w.of(t, med.RoleNurse), "p-2", event)).GetRuling()
	next, err := f.Recv()
	noError(t, err)
	if len(next.GetMints()) != 1 || next.GetMints()[0].GetNonce() != again.GetNonce() || next.GetMints()[0].GetNumber() != 2 {
		t.Errorf("the next, and neither denial nor service: got %v", next.GetMints())
	}

	noError(t, f.Send(&pb.Settled{Life: "another's", Through: 2}))
	noError(t, f.Send(&pb.Settled{Life: first.GetLife(), Through: 1}))
	eventually(t, "the settled one is not told again, the other is", func() bool {
		_, m := feed(t, w.worker(t))
		return len(m.GetMints()) == 1 && m.GetMints()[0].GetNumber() == 2
	})
	w.restart(t)
	if _, m := feed(t, w.worker(t)); m.GetLife() == first.GetLife() || len(m.GetMints()) != 0 {
		t.Errorf("a sidecar that starts anew counts anew: got %v", m)
	}
}

func TestOnlyTheWorkerIsTold(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for _, tok := range []string{"", serviceTokens["import"], "worker"} {
		g := pb.NewGateServiceClient(connect(t, w.addr, tok))
		f, err := g.Minted(t.Context())
		noError(t, err)
		if m, err := f.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%q: got %v, %v", tok, m, err)
		}
		a := askOn(t, g, &pb.Question{Id: 1, Ask: &pb.Question_Attest{Attest: &pb.Attest{}}})[1]
		refusedWith(t, a, "denied", "service_action")
	}
	refusedWith(t, w.one(t, mayFor(w.of(t, med.RoleClinician), "p-1", "not-a-uuid")), "invalid", "event_id")
}

func TestAWorkerThatIsAwayCostsTheOldest(t *testing.T) {
	t.Parallel()
	w := start(t, options{unsettled: 300})
	tok := w.of(t, med.RoleClinician)
	for i := range 310 {
		if w.one(t, may(tok, fmt.Sprintf("p-%d", i%5))).GetRuling().GetContext() == "" {
			t.Fatal("no answer")
		}
	}
	f, first := feed(t, w.worker(t))
	ms := until(t, f, first, 300)
	if first.GetLost() != 10 || ms[0].GetNumber() != 11 || ms[299].GetNumber() != 310 || len(ms) != 300 {
		t.Errorf("got %d lost, and %d from %d", first.GetLost(), len(ms), ms[0].GetNumber())
	}
	if n := strings.Count(w.log.String(), "ALERT minted contexts dropped unsettled"); n != 1 {
		t.Errorf("the log tells of it %d times, want once a minute", n)
	}
}

func TestAttest(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	event, other := med.NewUUID(time.Now()), med.NewUUID(time.Now())
	r := w.one(t, mayFor(w.of(t, med.RoleClinician), "p-1", event)).GetRuling()
	unbound := w.one(t, may(w.of(t, med.RoleClinician), "p-1")).GetRuling()
	entry := func(r *pb.Ruling, change func(*pb.Entry)) *pb.Entry {
		e := &pb.Entry{
			Nonce: r.GetNonce(), Mac: r.GetMac(), EventId: event, Issuer: issuer, Subject: "the-clinician", PracticeId: "north", PatientId: "p-1",
			RecordedAt: w.clock.Now().UnixMilli(),
		}
		if change != nil {
			change(e)
		}
		return e
	}
	const good, bad, gone = pb.Attestation_ATTESTATION_GOOD, pb.Attestation_ATTESTATION_BAD, pb.Attestation_ATTESTATION_UNKNOWN_KEY
	cases := []struct {
		name  string
		entry *pb.Entry
		want  pb.Attestation
	}{
		{"the entry of the context", entry(r, nil), good},
		{"another person", entry(r, func(e *pb.Entry) { e.Subject = "the-nurse" }), bad},
		{"another patient", entry(r, func(e *pb.Entry) { e.PatientId = "p-2" }), bad},
		{"another patient, as a child", entry(r, func(e *pb.Entry) { e.PatientId, e.Child = "p-2", true }), bad},
		{"another call", entry(r, func(e *pb.Entry) { e.EventId = other }), bad},
		{"another practice", entry(r, func(e *pb.Entry) { e.PracticeId = "south" }), bad},
		{"another context's nonce", entry(r, func(e *pb.Entry) { e.Nonce = unbound.GetNonce() }), bad},
		{"no MAC", entry(r, func(e *pb.Entry) { e.Mac = "" }), bad},
		{"an hour later", entry(r, func(e *pb.Entry) { e.RecordedAt += time.Hour.Milliseconds() }), bad},
		{"a key that is gone", entry(r, func(e *pb.Entry) { e.Mac = strings.Replace(e.Mac, "test1", "test0", 1) }), gone},
		{"a call that did not say which", entry(unbound, nil), bad},
	}
	ask := &pb.Attest{}
	for _, c := range cases {
		ask.Entries = append(ask.Entries, c.entry)
	}
	g := w.worker(t)
	a := askOn(t, g, &pb.Question{Id: 1, Ask: &pb.Question_Attest{Attest: ask}})[1].GetAttested().GetAttestations()
	if len(a) != len(cases) {
		t.Fatalf("%d answers to %d entries", len(a), len(cases))
	}
	for i, c := range cases {
		if a[i] != c.want {
			t.Errorf("%s: got %s, want %s", c.name, a[i], c.want)
		}
	}
	refusedWith(t, askOn(t, g, &pb.Question{Id: 1, Ask: &pb.Question_Attest{Attest: &pb.Attest{Entries: make([]*pb.Entry, 257)}}})[1], "invalid", "too_many_entries")
}

func TestWhoAsksForManyPatientsIsNoticed(t *testing.T) {
	t.Parallel()
	w := start(t, options{patients: 3})
	doctor, nurse := w.of(t, med.RoleClinician), w.of(t, med.RoleNurse)
	for _, p := range []string{"p-1", "p-2", "p-3", "p-1", "p-2", "p-3"} {
		w.one(t, may(doctor, p))
		w.one(t, may(nurse, p))
	}
	if strings.Contains(w.log.String(), "more patients within an hour") {
		t.Fatal("three are not above three, however often")
	}
	for _, p := range []string{"p-4", "p-5", "p-6"} {
		w.one(t, may(doctor, p))
	}
	if n := strings.Count(w.log.String(), "ALERT more patients within an hour"); n != 1 {
		t.Errorf("%d alarms, want one", n)
	}
	f, first := feed(t, w.worker(t))
	var excess []int64
	for _, m := range until(t, f, first, 15) {
		if m.GetExcess() > 0 {
			excess = append(excess, m.GetExcess())
			if m.GetSubject() != "the-clinician" || m.GetPatientId() != "p-4" {
				t.Errorf("got %v", m)
			}
		}
	}
	if len(excess) != 1 || excess[0] != 4 {
		t.Errorf("told %v, want the 4 once", excess)
	}
	w.clock.advance(time.Hour)
	for _, p := range []string{"p-1", "p-2", "p-3"} {
		w.one(t, may(w.of(t, med.RoleClinician), p))
	}
	if n := strings.Count(w.log.String(), "ALERT more patients within an hour"); n != 1 {
		t.Errorf("%d alarms in the next hour", n)
	}
}
