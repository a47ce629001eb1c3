// SPDX-License-Identifier: Apache-2.0

// Package gate asks the sidecar who is calling and what they may do. It
// remembers no answer: every request asks, and an answer that does not come
// within a second is a no. The questions of concurrent requests travel
// together, many in one message on one stream.
package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// Gate is the way to the sidecar.
type Gate struct {
	conn     *grpc.ClientConn
	client   pb.GateServiceClient
	deadline time.Duration
	now      func() time.Time

	said   said
	skew   atomic.Int64 // of the sidecar's clock against ours at its last message, in milliseconds
	ask    chan *asked
	stop   context.CancelFunc
	closed <-chan struct{}
	group  sync.WaitGroup
}

type asked struct {
	question *pb.Question
	size     int             // in bytes, on the wire
	answer   chan *pb.Answer // buffered; nil: no answer will come
	gone     atomic.Bool     // the asker does not wait any more
}

// Open connects to the sidecar. It reports an error when the sidecar cannot be
// reached, is not healthy, or would be reached without protection: a server
// must not start then. now is our clock, which the sidecar's is compared with.
func Open(ctx context.Context, cfg coresdk.Config, now func() time.Time) (*Gate, error) {
	conn, err := coresdk.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	deadline := cfg.Timeout
	if deadline <= 0 {
		deadline = coresdk.DefaultTimeout
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	g := &Gate{conn: conn, client: pb.NewGateServiceClient(conn), deadline: deadline, now: now, ask: make(chan *asked, 4096), stop: stop, closed: life.Done()}
	g.group.Go(func() { g.run(life) })
	return g, nil
}

// Close ends the stream; questions under way are refused.
func (g *Gate) Close() error {
	g.stop()
	g.group.Wait()
	return g.conn.Close()
}

// Who returns the caller a token speaks for. It reports Unauthorized, with the
// code sidecar_unavailable when the sidecar did not answer.
func (g *Gate) Who(ctx context.Context, token med.Credential) (med.Caller, error) {
	a, err := g.put(ctx, &pb.Question{Ask: &pb.Question_Who{Who: &pb.Who{Token: token.Reveal()}}})
	if err != nil {
		return med.Caller{}, err
	}
	c := a.GetCaller()
	if c == nil || c.GetSubject() == "" || c.GetIssuer() == "" {
		return med.Caller{}, refusal(a)
	}
	caller := callerOf(c, token)
	if len(caller.Roles) == 0 { // none, or none that we know
		return med.Caller{}, refusal(a)
	}
	return caller, nil
}

// Ask is a question about one patient.
type Ask struct {
	Action   string        // read, ...
	Resource string        // patient, audit, ...
	Patient  med.PatientID // "" only to read the trail of the caller's practice
	Kind     med.Kind
	// ReasonCode is set for a break-glass access.
	ReasonCode string
	// Grant is the grant that is read, ended or reviewed.
	Grant string
	// Over is a grant that was found to be over: the answer does not stand on it.
	Over string
	// Event is the primary entry that the call will leave: the ruling's MAC is
	// for it and its children. Without it no entry can be told from a forged one.
	Event med.EventID
}

// May returns what the caller may do, for each relation they could have to the
// patient, and the context with which the database settles which one it is.
// It reports Unauthorized, MFARequired or Forbidden.
func (g *Gate) May(ctx context.Context, c *med.Caller, q Ask) (*med.Ruling, error) {
	may := &pb.May{
		Token: c.Credential.Reveal(), Action: q.Action, ResourceType: q.Resource, PatientId: string(q.Patient), Kind: string(q.Kind),
		EventId: string(q.Event), AccessReason: c.AccessReason, GrantId: q.Grant, Over: q.Over,
	}
	if q.ReasonCode != "" {
		may.Emergency = &pb.Emergency{ReasonCode: q.ReasonCode}
	}
	return g.rule(ctx, &pb.Question{Ask: &pb.Question_May{May: may}})
}

// Serve returns the context for unattended work: one action on one practice.
func (g *Gate) Serve(ctx context.Context, c *med.Caller, action string, practice med.PracticeID) (*med.Ruling, error) {
	return g.rule(ctx, &pb.Question{Ask: &pb.Question_Serve{Serve: &pb.Serve{
		Action: action, PracticeId: string(practice), OnBehalfOf: c.OnBehalfOf,
	}}})
}

func (g *Gate) rule(ctx context.Context, q *pb.Question) (*med.Ruling, error) {
	a, err := g.put(ctx, q)
	if err != nil {
		return nil, err
	}
	r := a.GetRuling()
	if r == nil {
		return nil, refusal(a)
	}
	return g.rulingOf(r)
}

func (g *Gate) put(ctx context.Context, q *pb.Question) (*pb.Answer, error) {
	w := &asked{question: q, size: proto.Size(q), answer: make(chan *pb.Answer, 1)}
	defer w.gone.Store(true)
	if w.size > maxQuestion || !sendable(q) {
		// It would break the stream that it shares with all others.
		return nil, med.Unauthorized.Because(errors.New("a question that cannot be sent"))
	}
	select {
	case <-g.closed:
		return nil, Unavailable(errors.New("closed"))
	case g.ask <- w:
	default:
		return nil, Unavailable(errors.New("question queue full"))
	}
	late := time.NewTimer(g.deadline) // a context of its own would cost several times as much
	defer late.Stop()
	select {
	case a := <-w.answer:
		if a == nil {
			return nil, Unavailable(errors.New("stream broken"))
		}
		if skew := g.Skew(); skew > maxSkew {
			return nil, Unavailable(fmt.Errorf("its clock and ours are %s apart: set them by NTP", skew.Round(time.Second)))
		}
		return a, nil
	case <-g.closed:
		return nil, Unavailable(errors.New("closed"))
	case <-late.C:
		return nil, Unavailable(context.DeadlineExceeded)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) { // the caller hung up; the sidecar is not to blame
			return nil, Unavailable(ctx.Err()).Coded("cancelled")
		}
		return nil, Unavailable(ctx.Err())
	}
}

// maxSkew is how far the sidecar's clock and ours may be apart: beyond it
// nobody can say how old a token or a second factor is.
const maxSkew = 30 * time.Second

// Skew returns how far the sidecar's clock and ours were apart at its last
// message; never negative.
func (g *Gate) Skew() time.Duration {
	return (time.Duration(g.skew.Load()) * time.Millisecond).Abs()
}

// sendable reports whether the strings that come from outside can be sent:
// protobuf refuses a message whose strings are not UTF-8.
func sendable(q *pb.Question) bool {
	m, s := q.GetMay(), q.GetServe()
	return utf8.ValidString(q.GetWho().GetToken()) && utf8.ValidString(m.GetToken()) && utf8.ValidString(m.GetPatientId()) &&
		utf8.ValidString(m.GetKind()) && utf8.ValidString(m.GetGrantId()) && utf8.ValidString(m.GetAccessReason()) && utf8.ValidString(s.GetPracticeId()) && utf8.ValidString(s.GetOnBehalfOf())
}

// Unavailable is the guide's 401, with the code that says why.
func Unavailable(cause error) *med.Error {
	return med.Unauthorized.Because(cause).Coded("sidecar_unavailable")
}

func refusal(a *pb.Answer) error {
	r := a.GetRefusal()
	cause := errors.New("sidecar: " + r.GetDetail())
	switch r.GetCode() {
	case "denied":
		return med.Forbidden.Because(cause)
	case "mfa_required", "mfa_stale":
		return med.MFARequired.Because(cause)
	case "invalid":
		return med.Invalid.Because(cause)
	case "rate_limited":
		e := med.RateLimited.Because(cause)
		e.RetryAfter = time.Minute
		return e
	}
	return med.Unauthorized.Because(cause) // unauthenticated, and whatever we do not know
}

func callerOf(c *pb.Caller, token med.Credential) med.Caller {
	out := med.Caller{
		Issuer: c.GetIssuer(), Subject: c.GetSubject(), Practice: med.PracticeID(c.GetPracticeId()), Patient: med.PatientID(c.GetPatientId()),
		MFA: med.MFA(c.GetMfa()), Session: c.GetSession(), TokenID: c.GetTokenId(), ExpiresAt: time.Unix(c.GetExpiresAt(), 0),
		Credential: token,
	}
	if c.GetMfaAt() != 0 {
		out.MFAAt = time.Unix(c.GetMfaAt(), 0)
	}
	if c.GetAuthTime() != 0 {
		out.AuthTime = time.Unix(c.GetAuthTime(), 0)
	}
	for _, r := range c.GetRoles() {
		if role, ok := med.ParseRole(r); ok {
			out.Roles = append(out.Roles, role)
		}
	}
	return out
}

func (g *Gate) rulingOf(r *pb.Ruling) (*med.Ruling, error) {
	said, err := g.said.of(r.GetSaid())
	if err != nil {
		return nil, err
	}
	out := &med.Ruling{
		Decisions: said.Decisions, Records: said.Records, Reads: said.Reads,
		Context: r.GetContext(), Nonce: r.GetNonce(), MAC: r.GetMac(), Revision: r.GetRevision(),
		Strict: r.GetStrict(),
	}
	if g := r.GetGrant(); g != nil {
		out.Grant = &med.Grant{
			ID: g.GetId(), Opened: g.GetOpened(), OpenedAt: time.Unix(g.GetOpenedAt(), 0), ExpiresAt: time.Unix(g.GetExpiresAt(), 0),
			ReasonCode: g.GetReasonCode(), Signed: g.GetSigned(), PageP1: g.GetPageP1(),
			MaxAge: time.Duration(g.GetMaxAge()) * time.Second,
		}
	}
	return out, nil
}

// said keeps what was taken apart, by its bytes. It is no memory of answers: the
// sidecar says with each what the policy says now, and the same bytes mean the
// same. What it returns is shared and must not be changed.
type said struct {
	mu   sync.RWMutex
	read map[string]*med.Ruling
}

// mostSaid bounds what is kept: a policy says a few hundred different things.
const mostSaid = 4096

func (s *said) of(wire []byte) (*med.Ruling, error) {
	s.mu.RLock()
	r := s.read[string(wire)]
	s.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	var m pb.Said
	if err := proto.Unmarshal(wire, &m); err != nil {
		return nil, med.Unauthorized.Because(errors.New("a ruling that cannot be read"))
	}
	r = saidOf(&m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil || len(s.read) >= mostSaid {
		s.read = map[string]*med.Ruling{}
	}
	s.read[string(wire)] = r
	return r, nil
}

func saidOf(m *pb.Said) *med.Ruling {
	out := &med.Ruling{Decisions: make(map[med.Relation]med.Decision, len(m.GetDecisions()))}
	for rel, d := range m.GetDecisions() {
		out.Decisions[med.Relation(rel)] = decisionOf(d)
	}
	out.Records = tablesOf(m.GetRecords())
	if out.Reads = tablesOf(m.GetReads()); out.Reads == nil {
		out.Reads = out.Records
	}
	treats(out)
	return out
}

// treats says of who treats the patient what is said of the whole practice, in
// the one of the two tables that makes no difference: so that both are there.
func treats(r *med.Ruling) {
	const treating, practice = med.RelationTreating, med.RelationSamePractice
	switch {
	case r.Records[treating] != nil && r.Reads != nil && r.Reads[treating] == nil:
		r.Reads[treating] = r.Reads[practice]
	case r.Reads[treating] != nil && r.Records != nil && r.Records[treating] == nil:
		r.Records[treating], r.Decisions[treating] = r.Records[practice], r.Decisions[practice]
	}
}

func tablesOf(rs []*pb.RecordDecision) map[med.Relation]*med.RecordTable {
	if len(rs) == 0 {
		return nil
	}
	out := make(map[med.Relation]*med.RecordTable, 1)
	for _, r := range rs {
		rel := med.Relation(r.GetRelation())
		if out[rel] == nil {
			out[rel] = &med.RecordTable{}
		}
		out[rel].Decide(decisionOf(r.GetDecision()), r.GetCells()...)
	}
	return out
}

func decisionOf(d *pb.Decision) med.Decision {
	out := med.Decision{Allow: d.GetAllow(), Reason: d.GetReasonCode(), Notify: d.GetNotify(), MaxRows: int(d.GetMaxRows())}
	if !d.GetAllow() {
		return out
	}
	out.View = make(med.View, len(d.GetReveal())+len(d.GetMask()))
	for _, f := range d.GetReveal() {
		out.View[med.Field(f)] = med.Reveal
	}
	for _, f := range d.GetMask() {
		out.View[med.Field(f)] = med.Mask
	}
	if len(d.GetWrite()) > 0 {
		out.Write = make(map[med.Field]bool, len(d.GetWrite()))
		for _, f := range d.GetWrite() {
			out.Write[med.Field(f)] = true
		}
	}
	return out
}

// Healthy reports whether the sidecar answers a question now. The question has
// no token, so the answer is a refusal: an answer all the same.
func (g *Gate) Healthy(ctx context.Context) error {
	_, err := g.put(ctx, &pb.Question{Ask: &pb.Question_Who{Who: &pb.Who{}}})
	return err
}
