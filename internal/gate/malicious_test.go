// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// saying answers every question with the same thing.
func saying(t *testing.T, answer func(*pb.Question) *pb.Answer, deadline ...time.Duration) *gate.Gate {
	t.Helper()
	f := &far{}
	f.ask = f.answering(answer)
	return open(t, f.serve(t, "127.0.0.1:0"), deadline...)
}

func TestWhatIsNotACleanAnswerIsNoCaller(t *testing.T) {
	t.Parallel()
	caller := func(change func(*pb.Caller)) func(*pb.Question) *pb.Answer {
		return func(q *pb.Question) *pb.Answer {
			a := echo(q)
			change(a.GetCaller())
			return a
		}
	}
	refusal := func(code string) func(*pb.Question) *pb.Answer {
		return func(q *pb.Question) *pb.Answer {
			return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Refusal{Refusal: &pb.Refusal{Code: code, Detail: "d"}}}
		}
	}
	for name, tc := range map[string]struct {
		answer func(*pb.Question) *pb.Answer
		kind   *med.ErrorKind
		code   string
	}{
		"nothing":                     {func(*pb.Question) *pb.Answer { return nil }, med.Unauthorized, "sidecar_unavailable"},
		"another question's id":       {func(q *pb.Question) *pb.Answer { a := echo(q); a.Id += 1000; return a }, med.Unauthorized, "sidecar_unavailable"},
		"the id 0":                    {func(q *pb.Question) *pb.Answer { a := echo(q); a.Id = 0; return a }, med.Unauthorized, "sidecar_unavailable"},
		"an empty answer":             {func(q *pb.Question) *pb.Answer { return &pb.Answer{Id: q.GetId()} }, med.Unauthorized, "unauthorized"},
		"a caller that is not said":   {func(q *pb.Question) *pb.Answer { return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Caller{}} }, med.Unauthorized, "unauthorized"},
		"a caller without a subject":  {caller(func(c *pb.Caller) { c.Subject = "" }), med.Unauthorized, "unauthorized"},
		"a caller without an issuer":  {caller(func(c *pb.Caller) { c.Issuer = "" }), med.Unauthorized, "unauthorized"},
		"a caller without a role":     {caller(func(c *pb.Caller) { c.Roles = nil }), med.Unauthorized, "unauthorized"},
		"a caller of unknown roles":   {caller(func(c *pb.Caller) { c.Roles = []string{"root", ""} }), med.Unauthorized, "unauthorized"},
		"a caller who is a service":   {caller(func(c *pb.Caller) { c.Roles = []string{"service:import"} }), med.Unauthorized, "unauthorized"},
		"a ruling":                    {func(q *pb.Question) *pb.Answer { return ruling(q, true) }, med.Unauthorized, "unauthorized"},
		"the refusal unauthenticated": {refusal("unauthenticated"), med.Unauthorized, "unauthorized"},
		"the refusal denied":          {refusal("denied"), med.Forbidden, "forbidden"},
		"the refusal mfa_stale":       {refusal("mfa_stale"), med.MFARequired, "mfa_required"},
		"the refusal invalid":         {refusal("invalid"), med.Invalid, "invalid"},
		"a refusal without a code":    {refusal(""), med.Unauthorized, "unauthorized"},
		"a refusal that says ok":      {refusal("ok"), med.Unauthorized, "unauthorized"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var deadline []time.Duration
			if tc.code == "sidecar_unavailable" { // what it is told when no answer came
				deadline = append(deadline, time.Second)
			}
			c, err := saying(t, tc.answer, deadline...).Who(t.Context(), "t")
			if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", med.Caller{}) {
				t.Errorf("a caller came with it: %+v", c)
			}
			if med.KindOf(err) != tc.kind || med.CodeOf(err) != tc.code {
				t.Errorf("got %v, want %s (%s)", err, tc.kind.Slug, tc.code)
			}
		})
	}
}

func ruling(q *pb.Question, allow bool) *pb.Answer {
	d := &pb.Decision{Allow: allow, Reveal: []string{"ssn", "name"}, Mask: []string{"dob"}, Write: []string{"ssn"}, Notify: []string{"officer"}}
	return rulingThat(q, &pb.Said{Decisions: map[string]*pb.Decision{"same_practice": d, "made_up": d, "self": {}}})
}

func rulingThat(q *pb.Question, says *pb.Said) *pb.Answer {
	said, err := proto.Marshal(says)
	if err != nil {
		panic(err)
	}
	return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Ruling{Ruling: &pb.Ruling{Said: said, Context: "c", Nonce: "n", Mac: "m", Revision: "r"}}}
}

func TestARulingAllowsOnlyWhatItSays(t *testing.T) {
	t.Parallel()
	ask := gate.Ask{Action: "read", Resource: "patient", Patient: "p-001"}
	rule := func(t *testing.T, answer func(*pb.Question) *pb.Answer) (*med.Ruling, error) {
		t.Helper()
		return saying(t, answer).May(t.Context(), &med.Caller{Credential: "t"}, ask)
	}
	t.Run("a clean yes", func(t *testing.T) {
		t.Parallel()
		r, err := rule(t, func(q *pb.Question) *pb.Answer {
			m := q.GetMay()
			if m.GetToken() != "t" || m.GetAction() != "read" || m.GetResourceType() != "patient" || m.GetPatientId() != "p-001" || m.GetEmergency() != nil {
				return nil
			}
			return ruling(q, true)
		})
		noError(t, err)
		d := r.Decisions[med.RelationSamePractice]
		if !d.Allow || d.View["ssn"] != med.Reveal || d.View["dob"] != med.Mask || d.View["diagnosis"] != med.Hide || !d.Write["ssn"] || !slices.Equal(d.Notify, []string{"officer"}) {
			t.Errorf("got %+v", d)
		}
		if r.Context != "c" || r.Nonce != "n" || r.MAC != "m" || r.Revision != "r" || r.Grant != nil {
			t.Errorf("got %+v", r)
		}
		for _, rel := range []med.Relation{med.RelationSelf, med.RelationOtherPractice, ""} {
			if d := r.Decisions[rel]; d.Allow || d.View != nil {
				t.Errorf("%q: got %+v, want a denial", rel, d)
			}
		}
	})
	t.Run("the fields of a denial are not revealed", func(t *testing.T) {
		t.Parallel()
		r, err := rule(t, func(q *pb.Question) *pb.Answer { return ruling(q, false) })
		noError(t, err)
		if d := r.Decisions[med.RelationSamePractice]; d.Allow || len(d.View) > 0 || len(d.Write) > 0 {
			t.Errorf("got %+v", d)
		}
	})
	t.Run("a field both masked and revealed is masked", func(t *testing.T) {
		t.Parallel()
		r, err := rule(t, func(q *pb.Question) *pb.Answer {
			return rulingThat(q, &pb.Said{Decisions: map[string]*pb.Decision{"same_practice": {Allow: true, Reveal: []string{"ssn"}, Mask: []string{"ssn"}}}})
		})
		noError(t, err)
		if d := r.Decisions[med.RelationSamePractice]; d.View["ssn"] != med.Mask {
			t.Errorf("got %s", d.View["ssn"])
		}
	})
	t.Run("a ruling without decisions denies", func(t *testing.T) {
		t.Parallel()
		r, err := rule(t, func(q *pb.Question) *pb.Answer {
			return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Ruling{Ruling: &pb.Ruling{Context: "c"}}}
		})
		noError(t, err)
		for _, rel := range med.Relations {
			if r.Decisions[rel].Allow {
				t.Errorf("%s is allowed", rel)
			}
		}
	})
	for name, answer := range map[string]func(*pb.Question) *pb.Answer{
		"a caller": echo,
		"no ruling at all in it": func(q *pb.Question) *pb.Answer {
			return &pb.Answer{Id: q.GetId(), Answer: &pb.Answer_Ruling{Ruling: &pb.Ruling{Said: []byte("\xff\xff"), Context: "c"}}}
		},
		"an empty answer": func(q *pb.Question) *pb.Answer { return &pb.Answer{Id: q.GetId()} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r, err := rule(t, answer); med.KindOf(err) != med.Unauthorized || r != nil {
				t.Errorf("got %+v, %v; want a refusal", r, err)
			}
			if r, err := saying(t, answer).Serve(t.Context(), &med.Caller{}, "import", "north"); med.KindOf(err) != med.Unauthorized || r != nil {
				t.Errorf("Serve: got %+v, %v; want a refusal", r, err)
			}
		})
	}
}

func TestTheQuestionCarriesTheReasonCodeAndNoReason(t *testing.T) {
	t.Parallel()
	g := saying(t, func(q *pb.Question) *pb.Answer {
		if q.GetMay().GetEmergency().GetReasonCode() != "other" {
			return nil
		}
		a := ruling(q, true)
		a.GetRuling().Grant = &pb.Grant{Id: "g", Opened: true, OpenedAt: 10, ExpiresAt: 20, ReasonCode: "other", Signed: "s", PageP1: true, MaxAge: 300}
		return a
	})
	r, err := g.May(t.Context(), &med.Caller{Credential: "t", Emergency: "Patient in ER"}, gate.Ask{Action: "read", Resource: "patient", Patient: "p", ReasonCode: "other"})
	noError(t, err)
	want := med.Grant{ID: "g", Opened: true, OpenedAt: time.Unix(10, 0), ExpiresAt: time.Unix(20, 0), ReasonCode: "other", Signed: "s", PageP1: true, MaxAge: 5 * time.Minute}
	if r.Grant == nil || *r.Grant != want {
		t.Errorf("got %+v, want %+v", r.Grant, want)
	}
}
