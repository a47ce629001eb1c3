// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// What one message holds at most, and how long mints gather for it.
const (
	maxEntries = 256
	maxMints   = 1000
	mintLinger = 20 * time.Millisecond
)

// attest says of entries of the trail whether they are of their context. Only
// the worker may ask: to others it would tell which guess is right.
func (s *Service) attest(id uint64, service string, q *pb.Attest) *pb.Answer {
	if service != watcher {
		return refuse(id, "denied", "service_action")
	}
	if len(q.GetEntries()) > maxEntries {
		return refuse(id, "invalid", "too_many_entries")
	}
	out := &pb.Attested{Attestations: make([]pb.Attestation, len(q.GetEntries()))}
	for i, e := range q.GetEntries() {
		out.Attestations[i] = s.attestation(e)
	}
	return &pb.Answer{Id: id, Answer: &pb.Answer_Attested{Attested: out}}
}

// watcher is the service that watches the trail.
const watcher = "worker"

func (s *Service) attestation(e *pb.Entry) pb.Attestation {
	claims := token.EntryClaims{
		Nonce: e.GetNonce(), Event: e.GetEventId(), Issuer: e.GetIssuer(), Subject: e.GetSubject(), Practice: e.GetPracticeId(), Patient: e.GetPatientId(),
	}
	recorded := time.UnixMilli(e.GetRecordedAt())
	err := s.cfg.Attester.Attest(claims, e.GetMac(), recorded)
	if token.ReasonOf(err) == token.ReasonBadSignature && e.GetChild() && claims.Patient != "" {
		// One of several patients of a context about none in particular.
		claims.Patient = ""
		err = s.cfg.Attester.Attest(claims, e.GetMac(), recorded)
	}
	switch {
	case err == nil:
		return pb.Attestation_ATTESTATION_GOOD
	case token.ReasonOf(err) == token.ReasonUnknownKey:
		return pb.Attestation_ATTESTATION_UNKNOWN_KEY
	}
	return pb.Attestation_ATTESTATION_BAD
}

// Minted tells the worker what was minted for persons, from the oldest that is
// not settled, and forgets what the worker says is.
func (s *Service) Minted(stream pb.GateService_MintedServer) error {
	ctx := stream.Context()
	if s.serviceOf(ctx) != watcher {
		return status.Error(codes.PermissionDenied, "only service:worker is told what was minted")
	}
	ended := make(chan struct{})
	go func() { // ends with the stream
		defer close(ended)
		for {
			in, err := stream.Recv()
			if err != nil {
				return
			}
			s.ledger.settle(in.GetLife(), in.GetThrough())
		}
	}()
	// Also when there is none: so the worker learns which life this is.
	for next, first := uint64(0), true; ; first = false {
		mints, lost, n, news := s.ledger.since(next, maxMints)
		next = n
		if len(mints) > 0 || first {
			if err := stream.Send(&pb.Mints{Life: s.ledger.life, Lost: lost, Mints: mints}); err != nil {
				return err
			}
		}
		if len(mints) == maxMints {
			continue
		}
		select {
		case <-news:
		case <-ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		select { // so that many travel together
		case <-time.After(mintLinger):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
