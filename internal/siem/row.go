// SPDX-License-Identifier: Apache-2.0

package siem

// row is the audit log row of our API, with the leaf's place in the log and
// without what only a reader with a right to it may see: the sealed reason and
// the token's id.
func row(v *view) []byte {
	type actor struct {
		Issuer     string   `json:"issuer"`
		Subject    string   `json:"subject"`
		Roles      []string `json:"roles"`
		Practice   string   `json:"practice_id,omitempty"`
		Session    string   `json:"session,omitempty"`
		MFA        string   `json:"mfa,omitempty"`
		OnBehalfOf string   `json:"on_behalf_of,omitempty"`
	}
	type resource struct {
		Type            string `json:"type"`
		ID              string `json:"id"`
		Patient         string `json:"patient_id,omitempty"`
		PatientPractice string `json:"patient_practice_id,omitempty"`
	}
	type fields struct {
		Clear   []string `json:"clear"`
		Masked  []string `json:"masked"`
		Hidden  []string `json:"hidden"`
		Changed []string `json:"changed,omitempty"`
	}
	type glass struct {
		Grant      string `json:"grant_id"`
		ReasonCode string `json:"reason_code"`
	}
	type origin struct {
		IP        string `json:"ip,omitempty"`
		UserAgent string `json:"user_agent,omitempty"`
		Origin    string `json:"origin,omitempty"`
		RequestID string `json:"request_id,omitempty"`
		ClientID  string `json:"client_request_id,omitempty"`
		TraceID   string `json:"trace_id,omitempty"`
	}
	type leaf struct {
		Epoch int32 `json:"epoch"`
		Index int64 `json:"index"`
	}
	out := struct {
		ID         string         `json:"id"`
		Parent     string         `json:"parent_id,omitempty"`
		OccurredAt string         `json:"occurred_at"`
		RecordedAt string         `json:"recorded_at"`
		Actor      actor          `json:"actor"`
		Action     string         `json:"action"`
		Resource   resource       `json:"resource"`
		Fields     fields         `json:"fields"`
		Outcome    string         `json:"outcome"`
		Code       string         `json:"code,omitempty"`
		Reason     string         `json:"decision_reason,omitempty"`
		Purpose    string         `json:"purpose,omitempty"`
		BreakGlass *glass         `json:"break_glass,omitempty"`
		Origin     origin         `json:"origin"`
		Revision   string         `json:"policy_revision,omitempty"`
		Counts     map[string]int `json:"counts,omitempty"`
		Leaf       leaf           `json:"leaf"`
		Cut        bool           `json:"truncated,omitempty"`
		Unreadable bool           `json:"detail_unreadable,omitempty"`
	}{
		ID: v.ID, Parent: v.Parent, OccurredAt: v.OccurredAt.Format(millis), RecordedAt: v.RecordedAt.Format(millis),
		Actor:  actor{v.Issuer, v.Subject, v.Roles, v.Practice, v.Session, v.MFA, v.OnBehalfOf},
		Action: v.Action, Resource: resource{v.ResourceType, v.ResourceID, v.Patient, v.PatientPractice},
		Fields: fields{v.Clear, v.Masked, v.Hidden, v.Changed}, Outcome: v.Outcome, Code: v.Code, Reason: v.Reason, Purpose: v.Purpose,
		Origin:   origin{v.IP, v.UserAgent, v.Origin, v.RequestID, v.ClientID, v.TraceID},
		Revision: v.Revision, Leaf: leaf{v.Epoch, v.Index}, Cut: v.Cut, Unreadable: v.Unreadable,
	}
	if v.Glass {
		out.BreakGlass = &glass{v.Grant, v.ReasonCode}
	}
	if len(v.Counts) > 0 {
		out.Counts = map[string]int{}
		for _, c := range v.Counts {
			out.Counts[c.name] = c.n
		}
	}
	return asciiJSON(out)
}
