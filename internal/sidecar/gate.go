// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// maxQuestions bounds one message of a stream.
const maxQuestions = 256

// keyPatience bounds how long one message waits for an issuer's keys: the
// questions of everybody travel together, and an asker gives up after a second.
// The fetch goes on without it, for the next who shows such a token.
const keyPatience = 250 * time.Millisecond

// Ask answers each message of questions with one message of answers.
func (s *Service) Ask(stream pb.GateService_AskServer) error {
	ctx := stream.Context()
	service := s.serviceOf(ctx)
	for {
		in, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // grpc returns io.EOF itself
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(s.answers(ctx, service, in)); err != nil {
			return err
		}
	}
}

func (s *Service) answers(ctx context.Context, service string, in *pb.Questions) *pb.Answers {
	keys, cancel := context.WithTimeout(ctx, keyPatience)
	defer cancel()
	out := &pb.Answers{Answers: make([]*pb.Answer, 0, len(in.GetQuestions()))}
	for i, q := range in.GetQuestions() {
		if i >= maxQuestions {
			out.Answers = append(out.Answers, refuse(q.GetId(), "invalid", "too_many_questions"))
			continue
		}
		out.Answers = append(out.Answers, s.answer(ctx, keys, service, q))
	}
	out.At = s.cfg.Now().UnixMilli()
	return out
}

// answer answers one question; keys is how long it may wait for an issuer.
func (s *Service) answer(ctx, keys context.Context, service string, q *pb.Question) *pb.Answer {
	switch ask := q.GetAsk().(type) {
	case *pb.Question_Who:
		return s.who(keys, q.GetId(), ask.Who)
	case *pb.Question_May:
		return s.may(ctx, keys, q.GetId(), ask.May)
	case *pb.Question_Serve:
		return s.serve(ctx, q.GetId(), service, ask.Serve)
	case *pb.Question_Attest:
		return s.attest(q.GetId(), service, ask.Attest)
	}
	return refuse(q.GetId(), "invalid", "unknown_question")
}

func refuse(id uint64, code, detail string) *pb.Answer {
	return &pb.Answer{Id: id, Answer: &pb.Answer_Refusal{Refusal: &pb.Refusal{Code: code, Detail: detail}}}
}

func (s *Service) who(keys context.Context, id uint64, q *pb.Who) *pb.Answer {
	c, err := s.claims(keys, q.GetToken())
	if err != nil {
		return refuse(id, "unauthenticated", reasonOf(err))
	}
	out := &pb.Caller{
		Issuer: c.Caller.Issuer, Subject: c.Caller.Subject, PracticeId: string(c.Caller.Practice), PatientId: string(c.Caller.Patient),
		Mfa: string(c.MFAState(s.cfg.Now())), Session: c.Caller.Session, TokenId: c.Caller.TokenID, ExpiresAt: c.Caller.ExpiresAt.Unix(),
		Roles: words(c.Caller.Roles),
	}
	if !c.Caller.MFAAt.IsZero() {
		out.MfaAt = c.Caller.MFAAt.Unix()
	}
	if !c.Caller.AuthTime.IsZero() {
		out.AuthTime = c.Caller.AuthTime.Unix()
	}
	return &pb.Answer{Id: id, Answer: &pb.Answer_Caller{Caller: out}}
}

func words(roles []med.Role) []string {
	out := make([]string, len(roles))
	for i, r := range roles {
		out[i] = string(r)
	}
	return out
}

func (s *Service) may(ctx, keys context.Context, id uint64, q *pb.May) *pb.Answer {
	c, err := s.claims(keys, q.GetToken())
	if err != nil {
		return refuse(id, "unauthenticated", reasonOf(err))
	}
	patient := med.PatientID("")
	if !aboutNobody(q) {
		if patient, err = med.ParsePatientID(q.GetPatientId()); err != nil {
			return refuse(id, "invalid", "patient_id")
		}
	}
	if q.GetEventId() != "" && !med.IsUUID(q.GetEventId()) {
		return refuse(id, "invalid", "event_id")
	}
	opening := q.GetResourceType() == "break_glass" && q.GetAction() == "open"
	lookingUp := aboutALookup(q)
	emergency := q.GetEmergency() != nil && slices.Contains(c.Caller.Roles, med.RoleBreakGlass) && !opening
	if (emergency || opening || lookingUp) && !slices.Contains(med.ReasonCodes, q.GetEmergency().GetReasonCode()) {
		return refuse(id, "invalid", "reason_code")
	}
	if q.GetAccessReason() != "" && !slices.Contains(med.ReasonCodes, q.GetAccessReason()) {
		return refuse(id, "invalid", "access_reason")
	}
	now := s.cfg.Now()
	if emergency && (c.Caller.AuthTime.IsZero() || now.Sub(c.Caller.AuthTime) > headerFormAge) {
		return refuse(id, "mfa_stale", "auth_time")
	}
	engine := s.cfg.Policy()
	mfa := c.MFAState(now)
	if emergency {
		if d, err := engine.Decide(ctx, policy.Input{
			Subject: policy.Subject{Roles: c.Caller.Roles, MFA: mfa}, Action: "open_by_header",
			Resource: policy.Resource{Type: "break_glass", Relation: med.RelationOtherPractice, Sensitivity: med.SensitivityNormal},
		}); err != nil || !d.Allow {
			return refuse(id, refusalOf(d.Reason), d.Reason)
		}
	}
	var standing *pb.Grant // that an earlier call opened
	if q.GetAction() == "read" && (q.GetResourceType() == "patient" || q.GetResourceType() == "record") && !emergency {
		standing = s.openGrant(c, string(patient), q.GetOver())
	}
	if lookingUp {
		return s.mayLookUp(ctx, id, c, q, patient)
	}
	if aboutGrants(q) {
		return s.mayGrants(ctx, id, c, q)
	}
	asked := policy.Input{
		Subject: policy.Subject{Roles: c.Caller.Roles, MFA: mfa, Grant: emergency || standing != nil, ReasonGiven: q.GetAccessReason() != ""},
		Action:  q.GetAction(),
		Resource: policy.Resource{
			Type: q.GetResourceType(), Kind: kindAsked(q), Sensitivity: med.SensitivityNormal, State: stateOf(q.GetAction()),
		},
	}
	ruled, err := s.decide(ctx, engine, asked, patient == "")
	if err != nil {
		return s.unruled(ctx, id, engine)
	}
	ruling := &pb.Ruling{Said: ruled.said, Revision: engine.Revision()}
	if !ruled.allows {
		return &pb.Answer{Id: id, Answer: &pb.Answer_Ruling{Ruling: ruling}}
	}
	claims := token.Context{
		Issuer: c.Caller.Issuer, Subject: c.Caller.Subject, Roles: words(c.Caller.Roles), Practice: c.Caller.Practice,
		Action: q.GetResourceType() + "." + q.GetAction(), Patient: string(patient), Self: string(c.Caller.Patient),
		Admin:   mfa != med.MFANone && slices.Contains(c.Caller.Roles, med.RoleAdmin),
		Session: c.Caller.Session,
	}
	if standing != nil {
		ruling.Grant = standing
		stand(&claims, c, standing)
	}
	if emergency || opening && c.Caller.Patient != patient {
		ruling.Grant, err = s.grant(c, string(patient), q.GetEmergency().GetReasonCode(), q.GetOver())
		if errors.Is(err, errManyGrants) {
			s.cfg.Log.ErrorContext(ctx, "ALERT break-glass grants beyond care", slog.String("subject", c.Caller.Subject))
			return refuse(id, "rate_limited", "grants")
		}
		if err != nil {
			s.cfg.Log.ErrorContext(ctx, "break-glass grant not kept", slog.Any("error", err))
			return refuse(id, "denied", "grant_not_kept")
		}
		stand(&claims, c, ruling.Grant)
		if ruling.Grant.GetOpened() {
			s.cfg.Log.WarnContext(ctx, "break-glass grant opened", slog.String("grant", ruling.Grant.GetId()),
				slog.String("subject", c.Caller.Subject), slog.String("patient", string(patient)), slog.String("reason_code", ruling.Grant.GetReasonCode()))
		}
	}
	if patient == "" {
		claims.MaxRows = ruled.maxRows
	}
	claims.Strict = s.strict(q, emergency || standing != nil)
	ruling.Strict = claims.Strict
	return s.mint(ctx, id, ruling, claims, q.GetEventId())
}

// unruled refuses what the policy could not say anything of.
func (s *Service) unruled(ctx context.Context, id uint64, engine *policy.Engine) *pb.Answer {
	s.cfg.Log.ErrorContext(ctx, "policy not evaluated", slog.String("revision", engine.Revision()))
	return refuse(id, "denied", "policy_error")
}

// kindAsked is the kind that decisions are for: none of an action on records,
// which is decided for every kind.
func kindAsked(q *pb.May) med.Kind {
	if q.GetResourceType() == "record" {
		return ""
	}
	return med.Kind(q.GetKind())
}

// aboutNobody reports whether a question names no patient.
func aboutNobody(q *pb.May) bool {
	return aboutThePractice(q) || q.GetPatientId() == "" && (aboutGrants(q) || aboutALookup(q))
}

// aboutThePractice reports whether a question is about the caller's whole
// practice, and so names no patient: reading its trail, proving an entry of it,
// listing whom one treats, and looking for patients, which shows ids and opens
// nobody. Every other question is about one patient.
func aboutThePractice(q *pb.May) bool {
	if q.GetPatientId() != "" || q.GetEmergency() != nil {
		return false
	}
	switch q.GetResourceType() + "." + q.GetAction() {
	case "audit.read", "audit.prove", "treatment.read", "patient.search":
		return true
	}
	return false
}

// stateOf is the state in which a patient must be for what is asked: what is
// restored is deleted. The database says which it is.
func stateOf(action string) string {
	if action == "restore" {
		return policy.StateDeleted
	}
	return policy.StateLive
}

// strict reports whether what is asked for is read against a ticket of the
// trail only: under broken glass and of an export always, else of a patient and
// what belongs to them when it is configured so. The asker has no say in it.
func (s *Service) strict(q *pb.May, emergency bool) bool {
	switch {
	case emergency, q.GetAction() == "export", q.GetResourceType() == "export":
		return true
	case q.GetPatientId() == "": // ids only: each patient found is read under a context of their own
		return false
	case slices.Contains([]string{"patient", "record", "disclosure"}, q.GetResourceType()):
		return s.cfg.StrictReads
	}
	return false
}

// refusalOf is the refusal's code for a reason of the policy.
func refusalOf(reason string) string {
	if reason == "mfa_required" || reason == "mfa_not_fresh" {
		return "mfa_required"
	}
	return "denied"
}

// mint signs the context of a ruling, for the call whose entry is event. What
// is minted for a person is told to the worker.
func (s *Service) mint(ctx context.Context, id uint64, ruling *pb.Ruling, c token.Context, event string) *pb.Answer {
	ttl := contextTTL
	if c.Service != "" {
		ttl = serviceContextTTL
	}
	signed, nonce, _, err := s.cfg.Minter.Mint(c, ttl)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "context not signed", slog.String("action", c.Action))
		return refuse(id, "denied", "context_refused")
	}
	ruling.Context, ruling.Nonce, ruling.Mac = signed, nonce, s.cfg.Minter.SignEntry(&c, nonce, event)
	ruling.ExpiresAt = s.cfg.Now().Add(ttl).Unix()
	if c.Service == "" {
		s.told(ctx, &c, nonce, event)
	}
	return &pb.Answer{Id: id, Answer: &pb.Answer_Ruling{Ruling: ruling}}
}

// rulingKey is all that decisions depend on.
type rulingKey struct {
	revision, roles, action, resource, kind string
	mfa                                     med.MFA
	grant, reason, nobody                   bool
}

// ruled is what the policy says of one action, as it is sent: taken apart and
// written down once, not for every question.
type ruled struct {
	said    []byte
	allows  bool // for some relation
	maxRows int  // of the caller's practice
}

// ruledBy writes down what the policy says.
func ruledBy(said *pb.Said) (*ruled, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(said)
	if err != nil {
		return nil, err
	}
	out := &ruled{said: wire, maxRows: int(said.GetDecisions()[string(med.RelationSamePractice)].GetMaxRows())}
	for _, d := range said.GetDecisions() {
		out.allows = out.allows || d.GetAllow()
	}
	return out, nil
}

// decide asks the policy for every relation; about nobody, for the caller's
// practice alone. The policy is pure and its input small, so what it said once
// for the same input it says again.
func (s *Service) decide(ctx context.Context, e *policy.Engine, in policy.Input, nobody bool) (*ruled, error) {
	key := rulingKey{
		revision: e.Revision(), roles: strings.Join(words(in.Subject.Roles), " "), action: in.Action, resource: in.Resource.Type,
		kind: string(in.Resource.Kind), mfa: in.Subject.MFA, grant: in.Subject.Grant, reason: in.Subject.ReasonGiven, nobody: nobody,
	}
	if v, ok := s.rulings.Load(key); ok {
		return v.(*ruled), nil
	}
	said, err := say(ctx, e, in)
	if err != nil {
		return nil, err
	}
	if in.Resource.Type == "record" && in.Action != "read" {
		in.Action = "read"
		reads, err := say(ctx, e, in)
		if err != nil {
			return nil, err
		}
		said.Reads = reads.GetRecords()
	}
	if nobody {
		maps.DeleteFunc(said.GetDecisions(), func(rel string, _ *pb.Decision) bool { return rel != string(med.RelationSamePractice) })
	}
	out, err := ruledBy(said)
	if err != nil {
		return nil, err
	}
	if s.nruling.Add(1) > 4096 { // action and kind are the asker's words
		s.rulings.Clear()
		s.nruling.Store(0)
	}
	s.rulings.Store(key, out)
	return out, nil
}

// say asks the policy for every relation: and of an action on records for each
// sort of record too.
func say(ctx context.Context, e *policy.Engine, in policy.Input) (*pb.Said, error) {
	out := &pb.Said{Decisions: make(map[string]*pb.Decision, len(med.Relations))}
	for _, rel := range med.Relations {
		in.Resource.Relation = rel
		one, err := decideOne(ctx, e, in)
		if err != nil {
			return nil, err
		}
		one.addTo(out, rel)
		if rel != med.RelationSamePractice {
			continue
		}
		in.Resource.Treating = true
		treating, err := decideOne(ctx, e, in)
		if err != nil {
			return nil, err
		}
		if !treating.equal(one) {
			treating.addTo(out, med.RelationTreating)
		}
		in.Resource.Treating = false
	}
	return out, nil
}

// ruledOne is what the policy says for one relation.
type ruledOne struct {
	decision *pb.Decision
	records  []*pb.RecordDecision
}

func (r ruledOne) equal(other ruledOne) bool {
	return proto.Equal(r.decision, other.decision) && slices.EqualFunc(r.records, other.records, func(a, b *pb.RecordDecision) bool {
		return proto.Equal(a, b)
	})
}

func (r ruledOne) addTo(said *pb.Said, rel med.Relation) {
	said.Decisions[string(rel)] = r.decision
	for _, g := range r.records {
		g := proto.CloneOf(g)
		g.Relation = string(rel)
		said.Records = append(said.Records, g)
	}
}

// decideOne asks the policy for one relation.
func decideOne(ctx context.Context, e *policy.Engine, in policy.Input) (ruledOne, error) {
	if in.Resource.Type == "record" {
		return decideRecords(ctx, e, in)
	}
	d, err := e.Decide(ctx, in)
	return ruledOne{decision: decisionOf(d)}, err
}

// decideRecords asks for each sort of record of one relation, keeps what is
// allowed, equal answers together, and returns the answer on the relation as a
// whole: the first that allows something, else the first.
func decideRecords(ctx context.Context, e *policy.Engine, in policy.Input) (ruledOne, error) {
	var whole med.Decision
	var groups []*pb.RecordDecision
	for _, in.Resource.Kind = range med.Kinds {
		for _, in.Resource.Sensitivity = range med.Sensitivities {
			for _, authorship := range med.Authorships {
				in.Resource.Authorship = string(authorship)
				d, err := e.Decide(ctx, in)
				if err != nil {
					return ruledOne{}, err
				}
				if whole.Reason == "" || d.Allow && !whole.Allow {
					whole = d
				}
				if cell, ok := med.RecordCell(in.Resource.Kind, in.Resource.Sensitivity, authorship); ok && d.Allow {
					groups = grouped(groups, decisionOf(d), uint32(cell)) //nolint:gosec // one of RecordCells
				}
			}
		}
	}
	return ruledOne{decisionOf(whole), groups}, nil
}

// grouped adds a sort of record to the group with the same decision.
func grouped(groups []*pb.RecordDecision, d *pb.Decision, cell uint32) []*pb.RecordDecision {
	for _, g := range groups {
		if proto.Equal(g.GetDecision(), d) {
			g.Cells = append(g.Cells, cell)
			return groups
		}
	}
	return append(groups, &pb.RecordDecision{Cells: []uint32{cell}, Decision: d})
}

func decisionOf(d med.Decision) *pb.Decision {
	out := &pb.Decision{Allow: d.Allow, ReasonCode: d.Reason, Notify: d.Notify, MaxRows: int64(d.MaxRows)}
	if !d.Allow {
		return out
	}
	for f, show := range d.View {
		switch show {
		case med.Reveal:
			out.Reveal = append(out.Reveal, string(f))
		case med.Mask:
			out.Mask = append(out.Mask, string(f))
		case med.Hide:
		}
	}
	for f, ok := range d.Write {
		if ok {
			out.Write = append(out.Write, string(f))
		}
	}
	slices.Sort(out.Reveal)
	slices.Sort(out.Mask)
	slices.Sort(out.Write)
	return out
}

// serviceActions is what each service may have a context for, whatever the
// policy says: the ceiling of unattended work.
var serviceActions = map[string][]string{
	"import":   {"import"},
	"worker":   {"sweep", "practice.list"},
	"operator": {"practice.add", "practice.list", "practice.enroll"},
}

// servicePolicy is the question to the policy for a service's action.
func servicePolicy(service, action string) policy.Input {
	in := policy.Input{
		Subject: policy.Subject{Roles: []med.Role{med.Role("service:" + service)}}, Action: action,
		Resource: policy.Resource{Type: "practice", Relation: med.RelationSamePractice, Sensitivity: med.SensitivityNormal, State: policy.StateLive},
	}
	switch action {
	case "import":
		in.Resource.Type = "patient"
	case "practice.add":
		in.Action = "practice_add"
	case "practice.enroll":
		in.Action = "practice_add" // who makes a practice says whom it trusts
	case "practice.list":
		// Whoever adds or sweeps practices must know which there are.
		in.Action = map[string]string{"operator": "practice_add", "worker": "sweep"}[service]
	}
	return in
}

// serve returns the context of unattended work: one action on one practice.
func (s *Service) serve(ctx context.Context, id uint64, service string, q *pb.Serve) *pb.Answer {
	if service == "" {
		return refuse(id, "unauthenticated", "no_service")
	}
	if !slices.Contains(serviceActions[service], q.GetAction()) {
		return refuse(id, "denied", "service_action")
	}
	engine := s.cfg.Policy()
	if d, err := engine.Decide(ctx, servicePolicy(service, q.GetAction())); err != nil || !d.Allow {
		return refuse(id, "denied", d.Reason)
	}
	c := token.Context{
		Issuer: "medirecord", Subject: "service:" + service, Roles: []string{"service:" + service}, Service: service, Action: q.GetAction(),
	}
	if q.GetAction() != "practice.list" {
		practice, err := med.ParsePracticeID(q.GetPracticeId())
		if err != nil {
			return refuse(id, "invalid", "practice_id")
		}
		c.Practice, c.Patient = practice, "*"
	}
	if q.GetAction() == "practice.add" {
		if err := s.state.added(q.GetPracticeId()); err != nil {
			s.cfg.Log.ErrorContext(ctx, "practice not kept", slog.Any("error", err))
			return refuse(id, "denied", "state_not_kept")
		}
	}
	return s.mint(ctx, id, &pb.Ruling{Revision: engine.Revision()}, c, "")
}

// serviceOf says which service a connection belongs to: by its certificate, or
// by its token where there is none. Not by anything a message says.
func (s *Service) serviceOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(t.State.VerifiedChains) > 0 {
			cn := t.State.VerifiedChains[0][0].Subject.CommonName
			name, _ := strings.CutPrefix(cn, "service:")
			if _, known := serviceActions[name]; known && name != cn {
				return name
			}
			return ""
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get("x-service-token")
	if len(tokens) != 1 || tokens[0] == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(tokens[0]))
	found := ""
	for name, want := range s.cfg.Services {
		if subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
			found = name
		}
	}
	return found
}
