// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// Claim is what an entry of the trail says of its context.
type Claim struct {
	Nonce, MAC      string
	Event           string // its primary entry: itself, or its parent
	Issuer, Subject string
	Practice        string // the actor's
	Patient         string
	RecordedAt      time.Time
	Child           bool
}

// Attestation is what the sidecar says of a claim.
type Attestation int

// Attestations. The zero value is nobody's answer.
const (
	Good Attestation = iota + 1
	Bad
	UnknownKey // made with a key that the sidecar does not have any more
)

// A question holds so many claims, or so many bytes of them. A claim that is
// longer than any honest one is none: whoever wrote it must not stop the others.
const (
	maxClaims     = 100
	maxClaimBytes = 32 << 10
	maxClaim      = 2 << 10
)

func (c *Claim) size() int {
	return len(c.Nonce) + len(c.MAC) + len(c.Event) + len(c.Issuer) + len(c.Subject) + len(c.Practice) + len(c.Patient)
}

// Attest returns for each claim whether the sidecar made its MAC for it. Only
// service:worker is answered. It reports Unauthorized with the code
// sidecar_unavailable when the sidecar did not answer.
func (g *Gate) Attest(ctx context.Context, claims []Claim) ([]Attestation, error) {
	out := make([]Attestation, len(claims))
	var batch []Claim
	var places []int
	bytes := 0
	flush := func() error {
		some, err := g.attest(ctx, batch)
		for i, a := range some {
			out[places[i]] = a
		}
		batch, places, bytes = batch[:0], places[:0], 0
		return err
	}
	for i, c := range claims {
		if c.size() > maxClaim {
			out[i] = Bad
			continue
		}
		batch, places, bytes = append(batch, c), append(places, i), bytes+c.size()
		if len(batch) == maxClaims || bytes >= maxClaimBytes {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if len(batch) > 0 {
		if err := flush(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (g *Gate) attest(ctx context.Context, claims []Claim) ([]Attestation, error) {
	q := &pb.Attest{Entries: make([]*pb.Entry, len(claims))}
	for i, c := range claims {
		q.Entries[i] = &pb.Entry{
			Nonce: c.Nonce, Mac: c.MAC, EventId: c.Event, Issuer: c.Issuer, Subject: c.Subject, PracticeId: c.Practice, PatientId: c.Patient,
			RecordedAt: c.RecordedAt.UnixMilli(), Child: c.Child,
		}
	}
	a, err := g.put(ctx, &pb.Question{Ask: &pb.Question_Attest{Attest: q}})
	if err != nil {
		return nil, err
	}
	said := a.GetAttested().GetAttestations()
	if a.GetAttested() == nil {
		return nil, refusal(a)
	}
	if len(said) != len(claims) {
		return nil, Unavailable(fmt.Errorf("%d attestations of %d entries", len(said), len(claims)))
	}
	out := make([]Attestation, len(said))
	for i, s := range said {
		switch s {
		case pb.Attestation_ATTESTATION_GOOD:
			out[i] = Good
		case pb.Attestation_ATTESTATION_UNKNOWN_KEY:
			out[i] = UnknownKey
		default:
			out[i] = Bad
		}
	}
	return out, nil
}

// Mint is a context that the sidecar minted for a person.
type Mint struct {
	Number          uint64
	At              time.Time
	Nonce           string
	Event           string // the primary entry of the call it was minted for
	Issuer, Subject string
	Practice        med.PracticeID // the caller's
	Patient         string
	Action          string
	// Excess is how many patients the person asked for within the hour, when it
	// is with this one that they became too many.
	Excess int64
}

// Mints is a message of the feed.
type Mints struct {
	Life  string // of the sidecar's counting
	Lost  uint64 // dropped unsettled in this life
	Mints []Mint
}

// Feed tells what the sidecar minted.
type Feed struct {
	stream grpc.BidiStreamingClient[pb.Settled, pb.Mints]
	stop   context.CancelFunc
}

// Minted opens the feed: all that is not settled, and then what comes. It is
// for service:worker. Close it, or end the context.
func (g *Gate) Minted(ctx context.Context) (*Feed, error) {
	ctx, stop := context.WithCancel(ctx)
	s, err := g.client.Minted(ctx)
	if err != nil {
		stop()
		return nil, Unavailable(err)
	}
	return &Feed{stream: s, stop: stop}, nil
}

// Next waits for the next message. It reports Forbidden for who is not the
// worker, and otherwise Unauthorized with the code sidecar_unavailable.
func (f *Feed) Next() (Mints, error) {
	in, err := f.stream.Recv()
	if status.Code(err) == codes.PermissionDenied {
		return Mints{}, med.Forbidden.Because(err)
	}
	if err != nil {
		return Mints{}, Unavailable(err)
	}
	out := Mints{Life: in.GetLife(), Lost: in.GetLost(), Mints: make([]Mint, len(in.GetMints()))}
	for i, m := range in.GetMints() {
		out.Mints[i] = Mint{
			Number: m.GetNumber(), At: time.UnixMilli(m.GetAt()), Nonce: m.GetNonce(), Event: m.GetEventId(), Issuer: m.GetIssuer(), Subject: m.GetSubject(),
			Practice: med.PracticeID(m.GetPracticeId()), Patient: m.GetPatientId(), Action: m.GetAction(), Excess: m.GetExcess(),
		}
	}
	return out, nil
}

// Settle tells the sidecar that all through the number need not be told again.
func (f *Feed) Settle(life string, through uint64) error {
	if err := f.stream.Send(&pb.Settled{Life: life, Through: through}); err != nil {
		return Unavailable(errors.Join(errors.New("settling"), err))
	}
	return nil
}

// Close ends the feed.
func (f *Feed) Close() { f.stop() }
