// SPDX-License-Identifier: Apache-2.0

package ginsdk

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
)

// problem is an RFC 9457 problem as MediRecord words it.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
	Code     string `json:"code"`
	Category string `json:"hipaa_category"`
}

const typeBase = "https://medirecord.example/errors/"

// The first is the guide's, word for word; clients match on it.
var (
	unauthorized = problem{
		Type: typeBase + "unauthorized", Title: "Unauthorized", Status: http.StatusUnauthorized,
		Detail: "Valid JWT required. Sidecar validation failed.", Code: "unauthorized", Category: "authentication",
	}
	forbidden = problem{
		Type: typeBase + "forbidden", Title: "Forbidden", Status: http.StatusForbidden,
		Detail: "Your role does not allow this.", Code: "forbidden", Category: "access_control",
	}
	mfaRequired = problem{
		Type: typeBase + "mfa-required", Title: "Forbidden", Status: http.StatusForbidden,
		Detail: "This needs multi-factor authentication. Sign in again with a second factor.", Code: "mfa_required", Category: "authentication",
	}
)

// send answers with the problem, about the request of the id, or of a new one.
func (p problem) send(c *gin.Context, id string) {
	if id == "" {
		id = newUUID()
	}
	p.Instance = "urn:uuid:" + id
	body, err := json.Marshal(p)
	if err != nil { // cannot be: strings and a number
		c.Status(p.Status)
		return
	}
	if p.Status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", "Bearer")
	}
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, "application/problem+json", body)
}

// newUUID returns a random UUID (RFC 9562 version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read does not fail (Go 1.24)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
