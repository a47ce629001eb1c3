// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
)

func (s *Server) proofRoutes(r *router) {
	handle(s, r, operation{
		id: "read-audit-checkpoint", path: "/api/v1/audit/checkpoint", tag: "audit",
		summary: "Read the newest signed head of the trail",
		doc: "The trail is a log (RFC 6962) whose heads are signed notes (C2SP tlog-checkpoint) that witnesses cosign. For the practice's " +
			"officer, and its admin with a second factor. Its tiles (C2SP tlog-tiles) are under /api/v1/audit/log/{epoch}/tile/.",
		errors: []*med.ErrorKind{med.BreakGlassReasonRequired, med.Forbidden, med.MFARequired, med.NotFound},
	}, s.readCheckpoint)
	handle(s, r, operation{
		id: "prove-audit-entry", path: "/api/v1/audit/events/{eventId}/proof", tag: "audit",
		summary: "Prove that an entry is in the trail",
		doc: "A C2SP tlog-proof: the entry's place in the log, its way to the root, and the signed head with its cosignatures. It is verified " +
			"without us, years later, by `medirecord audit verify --proof`. For who made the request that the entry tells of, the patient it is about, " +
			"and officer and admin of a practice that it concerns. An entry is sealed about a second after it is written; before that the code is not_sealed.",
		errors: []*med.ErrorKind{med.BreakGlassReasonRequired, med.MFARequired, med.NotFound},
	}, s.proveEntry)
	handle(s, r, operation{
		id: "prove-accesses", path: "/api/v1/patients/{id}/accesses/proof", tag: "audit",
		summary: "Prove that a list of accesses is whole",
		doc: "The leaf hash of every entry about the patient, in the order of the log, and the proof that the patient map of the signed head holds " +
			"their count and the head of the chain over exactly those: nothing is left out. What the list says of an entry is held against its hash by " +
			"`medirecord audit verify` over an export. For whom the list is.",
		errors: readErrors,
	}, s.proveAccesses)
	r.hashRoute("/api/v1/audit/log/:epoch/tile/*place", s.readTile)
}

type checkpointBody struct {
	Epoch      int    `json:"epoch" doc:"The log's epoch: a new one begins after a logical restore." example:"1"`
	Origin     string `json:"origin" doc:"The log's name." example:"medirecord.example/audit/1"`
	Size       int64  `json:"size" doc:"How many entries are under it."`
	Note       string `json:"note" doc:"The signed note, with the witnesses' cosignatures when they are in."`
	SignedAt   string `json:"signed_at" format:"date-time"`
	CosignedAt string `json:"cosigned_at,omitempty" format:"date-time" doc:"When the witnesses' quorum was in; absent before."`
}

func checkpointBodyOf(c *med.Checkpoint) checkpointBody {
	return checkpointBody{Epoch: c.Epoch, Origin: c.Origin, Size: c.Size, Note: c.Note, SignedAt: stamp(c.SignedAt), CosignedAt: stampIf(c.CosignedAt)}
}

func (s *Server) readCheckpoint(ctx context.Context, c med.Caller, _ *struct{}) (*answer[checkpointBody], error) {
	head, err := s.cfg.Chart.ReadCheckpoint(ctx, c)
	if err != nil {
		return nil, err
	}
	return answered(head.Event, checkpointBodyOf(head)), nil
}

type proofInput struct {
	Event string `path:"eventId" format:"uuid" doc:"The audit entry, as Audit-Event-Id names it."`
}

type proofBody struct {
	Entry      string         `json:"audit_event_id" format:"uuid" doc:"The entry that is proved."`
	Index      int64          `json:"index" doc:"Its place in the log."`
	Proof      string         `json:"proof" doc:"The C2SP tlog-proof: keep it as a file."`
	Checkpoint checkpointBody `json:"checkpoint" doc:"The head that the proof ends in; the proof holds its note too."`
}

func (s *Server) proveEntry(ctx context.Context, c med.Caller, in *proofInput) (*answer[proofBody], error) {
	p, err := s.cfg.Chart.ProveEntry(ctx, c, med.EventID(in.Event))
	if err != nil {
		return nil, err
	}
	return answered(p.Event, proofBody{Entry: string(p.Entry), Index: p.Index, Proof: p.Text, Checkpoint: checkpointBodyOf(&p.Head)}), nil
}

type wholeInput struct {
	ID string `path:"id" doc:"The patient's id: 1 to 64 letters, digits, dots and hyphens." example:"p-001"`
}

type wholeBody struct {
	Patient    string         `json:"patient_id" example:"p-001"`
	Count      int            `json:"count" doc:"How many entries are about the patient."`
	Entries    []wholeEntry   `json:"entries" doc:"All of them, the oldest first. Their chain is SHA-256(\"mr-patient-chain-v1\\0\", head before, leaf), from 32 zero bytes."`
	Siblings   []string       `json:"siblings" doc:"Hashes beside the way from the patient's leaf to the root of the patient map, base64."`
	Other      *wholeLeaf     `json:"other,omitempty" doc:"Of a patient without entries: whose leaf stands in their place."`
	Checkpoint checkpointBody `json:"checkpoint" doc:"Its note carries the patient map's root in the line that begins with patients."`
}

type wholeEntry struct {
	Event string `json:"audit_event_id" format:"uuid"`
	Leaf  string `json:"leaf" doc:"The leaf hash of the entry, base64."`
}

type wholeLeaf struct {
	Key   string `json:"key" doc:"base64"`
	Count int64  `json:"count"`
	Head  string `json:"head" doc:"base64"`
}

func (s *Server) proveAccesses(ctx context.Context, c med.Caller, in *wholeInput) (*answer[wholeBody], error) {
	id, err := parsePatient(in.ID)
	if err != nil {
		return nil, err
	}
	p, err := s.cfg.Chart.ProveAccesses(ctx, c, id)
	if err != nil {
		return nil, err
	}
	b := wholeBody{
		Patient: string(p.Patient), Count: len(p.Entries), Entries: make([]wholeEntry, len(p.Entries)), Siblings: make([]string, len(p.Siblings)),
		Checkpoint: checkpointBodyOf(&p.Head),
	}
	for i, e := range p.Entries {
		b.Entries[i] = wholeEntry{string(e.Entry), base64.StdEncoding.EncodeToString(e.Hash)}
	}
	for i, h := range p.Siblings {
		b.Siblings[i] = base64.StdEncoding.EncodeToString(h)
	}
	if o := p.Other; o != nil {
		b.Other = &wholeLeaf{base64.StdEncoding.EncodeToString(o.Key), o.Count, base64.StdEncoding.EncodeToString(o.Head)}
	}
	return answered(p.Event, b), nil
}

// tileCache is for how long a full tile may be kept: it never changes again.
const tileCache = 365 * 24 * time.Hour

// readTile serves a tile of hashes. A full one may be kept by its reader, a
// partial one too: what it holds stays so, and more has another name.
func (s *Server) readTile(c *gin.Context) {
	ctx := c.Request.Context()
	x := exchangeFrom(ctx)
	epoch, err := strconv.ParseInt(c.Param("epoch"), 10, 32)
	id, w, bad := audit.ParseTilePath("tile" + c.Param("place"))
	if err != nil || bad != nil || !x.known {
		s.refuse(ctx, c.Writer, x, med.NotFound.New(""))
		return
	}
	data, err := s.cfg.Chart.Tile(ctx, x.caller, int32(epoch), id, w)
	if err == nil && data == nil {
		err = med.NotFound.New("")
	}
	if err != nil {
		s.refuse(ctx, c.Writer, x, err)
		return
	}
	c.Header("Cache-Control", "private, immutable, max-age="+strconv.Itoa(int(tileCache.Seconds())))
	c.Data(http.StatusOK, "application/octet-stream", data)
}
