// SPDX-License-Identifier: Apache-2.0

package ginsdk

import (
	"errors"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/medirecord/medirecord/coresdk"
)

// claimsKey is where the claims are kept. No other package can make one, so
// claims in a context come from Middleware.
type claimsKey struct{}

// Option changes what surrounds a decision, never the decision.
type Option func(*settings)

type settings struct {
	requestID func(*gin.Context) string
	onRefusal func(*gin.Context, error)
}

// WithRequestID names requests: the problem's instance becomes
// urn:uuid:<what it returns>. Without it, or when it returns "", each refusal
// gets an id of its own.
func WithRequestID(id func(*gin.Context) string) Option {
	return func(s *settings) { s.requestID = id }
}

// WithRefusal is called with the reason before a request is answered with 401,
// to log or count it. The error holds no token.
func WithRefusal(f func(*gin.Context, error)) Option {
	return func(s *settings) { s.onRefusal = f }
}

// Middleware lets a request pass only with exactly one header
// "Authorization: Bearer <token>" whose token the sidecar calls valid now;
// Claims then returns whom it speaks for. All others end here with the
// problem 401: code unauthorized, or sidecar_unavailable when nobody could
// say. A nil SDK refuses everybody.
func Middleware(sdk *coresdk.SDK, opts ...Option) gin.HandlerFunc {
	var s settings
	for _, o := range opts {
		o(&s)
	}
	return func(c *gin.Context) {
		claims, err := authenticate(sdk, c.Request)
		if err != nil {
			s.refuse(c, err)
			return
		}
		c.Set(claimsKey{}, claims)
		c.Next()
	}
}

func authenticate(sdk *coresdk.SDK, r *http.Request) (*coresdk.Claims, error) {
	token, err := bearer(r.Header)
	if err != nil {
		return nil, err
	}
	return sdk.Authorize(r.Context(), token)
}

func (s *settings) refuse(c *gin.Context, err error) {
	c.Abort() // first: whatever the callback does, the handlers are not reached
	if s.onRefusal != nil {
		s.onRefusal(c, err)
	}
	id := ""
	if s.requestID != nil {
		id = s.requestID(c)
	}
	p := unauthorized
	if errors.Is(err, coresdk.ErrUnavailable) {
		p.Code = "sidecar_unavailable"
	}
	p.send(c, id)
}

var (
	errNoToken   = errors.New("ginsdk: no Authorization header")
	errTwoTokens = errors.New("ginsdk: more than one Authorization header")
	errScheme    = errors.New("ginsdk: the Authorization header is not Bearer and a token")
	errTooLong   = errors.New("ginsdk: the token is too long")
)

// bearer returns the token of the one Authorization header (RFC 6750 2.1).
// Two headers are refused, not chosen from: a proxy in front may have looked
// at the other one.
func bearer(h http.Header) (string, error) {
	values := h["Authorization"]
	switch {
	case len(values) == 0:
		return "", errNoToken
	case len(values) > 1:
		return "", errTwoTokens
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	switch {
	case !strings.EqualFold(scheme, "Bearer"), token == "", strings.ContainsAny(token, " ,\t"):
		return "", errScheme
	case len(token) > coresdk.MaxToken:
		return "", errTooLong
	}
	return token, nil
}

// Claims returns whom the request's token speaks for, or nil when Middleware
// did not run before. It never panics.
func Claims(c *gin.Context) *coresdk.Claims {
	if c == nil {
		return nil
	}
	v, _ := c.Get(claimsKey{})
	claims, _ := v.(*coresdk.Claims)
	return claims
}

// RequireRole lets a request pass only if one of the roles is in force. Others
// get the problem 403, or 401 when Middleware did not run before. Without
// roles nobody passes.
func RequireRole(roles ...string) gin.HandlerFunc {
	return require(forbidden, func(c *coresdk.Claims) bool { return c.Is(roles...) })
}

// RequireMFA lets a request pass only if a second factor was verified. Others
// get the problem 403 with code mfa_required, or 401 when Middleware did not
// run before.
func RequireMFA() gin.HandlerFunc {
	return require(mfaRequired, func(c *coresdk.Claims) bool { return c.MFA })
}

func require(otherwise problem, holds func(*coresdk.Claims) bool) gin.HandlerFunc {
	return func(c *gin.Context) {
		switch claims := Claims(c); {
		case claims == nil:
			c.Abort()
			unauthorized.send(c, "")
		case !holds(claims):
			c.Abort()
			otherwise.send(c, "")
		default:
			c.Next()
		}
	}
}
