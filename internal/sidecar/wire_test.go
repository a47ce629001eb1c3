// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/medirecord/medirecord/internal/med"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// The contract as the published clients speak it. A number that moves is a
// client that is cut off.
const wireContract = `
ProblemDetail: 1 string type, 2 string title, 3 uint32 status, 4 string detail, 5 string instance, 6 map<string,string> extensions
TenantContext: 1 string tenant_id, 2 string tenant_name, 3 repeated string roles, 4 map<string,string> attributes
RequestMetadata: 1 string request_id, 2 string trace_id, 3 string span_id, 4 string service_name
ValidateTokenRequest: 1 string token, 2 TenantContext tenant, 3 RequestMetadata metadata, 4 string expected_audience
ValidateTokenResponse: 1 bool valid, 2 string subject, 3 repeated string roles, 4 map<string,string> claims, 5 int64 expires_at, 6 ProblemDetail error
AuthorizeRequest: 1 string subject, 2 string action, 3 string resource, 4 TenantContext tenant, 5 RequestMetadata metadata, 6 map<string,string> context, 7 string token
AuthorizeResponse: 1 bool allowed, 2 string reason, 3 ProblemDetail error
GetJwksRequest: 1 TenantContext tenant
GetJwksResponse: 1 string jwks_json
RevokeTokenRequest: 1 string token, 2 string tenant_id, 3 string reason
RevokeTokenResponse: 1 bool success
IsRevokedRequest: 1 string token
IsRevokedResponse: 1 bool revoked
ValidateSamlAssertionRequest: 1 string assertion_b64, 2 string idp_entity_id, 3 string tenant_id
ValidateSamlAssertionResponse: 1 bool valid, 2 string user_id, 3 string email, 4 repeated string groups, 5 string attributes_json, 6 ProblemDetail error
RefreshTokenRequest: 1 string refresh_token
RefreshTokenResponse: 1 string token, 2 int64 expires_at, 3 ProblemDetail error
PolicyEvaluateRequest: 1 string rule, 2 string input_json, 3 TenantContext tenant, 4 RequestMetadata metadata
PolicyEvaluateResponse: 1 bool result, 2 string reason, 3 bool dry_run, 4 ProblemDetail error, 10 ResourcePermDecision resource_perm
WatchPolicyUpdatesRequest: 1 TenantContext tenant, 2 string last_bundle_version
PolicyBundleUpdate: 1 string bundle_version, 2 bytes bundle_data, 3 int64 updated_at
ResourcePermDecision: 1 string decision, 2 string reason_code, 3 string reason_detail, 4 string policy_version, 5 ResourcePermObligations obligations, 6 int32 safe_http_status, 7 string decision_id
ResourcePermObligations: 1 bool audit, 2 repeated string mask_field_classes, 3 int64 max_rows, 4 string expires_at, 5 string requires_approval_type
/coresdk.v1.AuthService/ValidateToken(ValidateTokenRequest) ValidateTokenResponse
/coresdk.v1.AuthService/Authorize(AuthorizeRequest) AuthorizeResponse
/coresdk.v1.AuthService/GetJwks(GetJwksRequest) GetJwksResponse
/coresdk.v1.AuthService/RevokeToken(RevokeTokenRequest) RevokeTokenResponse
/coresdk.v1.AuthService/IsRevoked(IsRevokedRequest) IsRevokedResponse
/coresdk.v1.AuthService/ValidateSAMLAssertion(ValidateSamlAssertionRequest) ValidateSamlAssertionResponse
/coresdk.v1.AuthService/RefreshToken(RefreshTokenRequest) RefreshTokenResponse
/coresdk.v1.PolicyService/Evaluate(PolicyEvaluateRequest) PolicyEvaluateResponse
/coresdk.v1.PolicyService/WatchPolicyUpdates(WatchPolicyUpdatesRequest) stream PolicyBundleUpdate
`

func TestTheWireContract(t *testing.T) {
	t.Parallel()
	var got []string
	for _, file := range []protoreflect.FileDescriptor{
		coresdkv1.File_coresdk_v1_common_proto, coresdkv1.File_coresdk_v1_auth_proto, coresdkv1.File_coresdk_v1_policy_proto,
	} {
		if file.Package() != "coresdk.v1" || file.Syntax() != protoreflect.Proto3 {
			t.Errorf("%s: package %s, %s", file.Path(), file.Package(), file.Syntax())
		}
		for i := range file.Messages().Len() {
			got = append(got, messageLine(file.Messages().Get(i)))
		}
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				m, stream := s.Methods().Get(j), ""
				if m.IsStreamingServer() {
					stream = "stream "
				}
				if m.IsStreamingClient() {
					t.Errorf("%s takes a stream", m.FullName())
				}
				got = append(got, fmt.Sprintf("/%s/%s(%s) %s%s", s.FullName(), m.Name(), m.Input().Name(), stream, m.Output().Name()))
			}
		}
	}
	want := strings.Split(strings.TrimSpace(wireContract), "\n")
	slices.Sort(got)
	slices.Sort(want)
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Error("not in the contract: " + line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Error("missing: " + line)
		}
	}
}

func messageLine(m protoreflect.MessageDescriptor) string {
	var fields []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		kind := f.Kind().String()
		switch {
		case f.IsMap():
			kind = fmt.Sprintf("map<%s,%s>", f.MapKey().Kind(), f.MapValue().Kind())
		case f.Message() != nil:
			kind = string(f.Message().Name())
		}
		if f.IsList() {
			kind = "repeated " + kind
		}
		fields = append(fields, fmt.Sprintf("%d %s %s", f.Number(), kind, f.Name()))
	}
	return string(m.Name()) + ": " + strings.Join(fields, ", ")
}

// rawCodec sends and receives bytes as they are: a client of another hand.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// text is field n as a string.
func text(n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
}

func TestATenantThatIsNoMessageIsAnInvalidArgument(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.of(t, med.RoleClinician)
	input := `{"action":"read","resource":{"type":"patient","relation":"same_practice","sensitivity":"normal","state":"live"}}`
	calls := map[string]struct {
		method string
		body   []byte
		tenant protowire.Number
	}{
		"ValidateToken":      {"/coresdk.v1.AuthService/ValidateToken", text(1, tok), 2},
		"Authorize":          {"/coresdk.v1.AuthService/Authorize", slices.Concat(text(2, "read"), text(3, "patient"), text(7, tok)), 4},
		"GetJwks":            {"/coresdk.v1.AuthService/GetJwks", nil, 1},
		"Evaluate":           {"/coresdk.v1.PolicyService/Evaluate", slices.Concat(text(1, "data.medirecord.allow"), text(2, input)), 3},
		"WatchPolicyUpdates": {"/coresdk.v1.PolicyService/WatchPolicyUpdates", nil, 1},
	}
	// The early client's plain strings. Some happen to read as a message of
	// fields that nobody knows: those must not pass either.
	tenants := []string{"practice-1", "practice-12", "north", "acme-corp", "default", "hospital", "tenant-a", "t", "\x0a", "\x0a\xff", "p-001-abcdefghi", strings.Repeat("x", 4000)}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tenant := range tenants {
				_, err := rawCall(t, w.conn, call.method, slices.Concat(call.body, text(call.tenant, tenant)))
				if status.Code(err) != codes.InvalidArgument {
					t.Errorf("tenant %.20q: got %v, want InvalidArgument", tenant, err)
				}
				if strings.Contains(fmt.Sprint(err), tok) || len(tenant) > 1 && strings.Contains(fmt.Sprint(err), tenant) {
					t.Error("the refusal repeats what was sent")
				}
			}
			if _, err := rawCall(t, w.conn, call.method, []byte{0xff, 0xff, 0xff}); status.Code(err) != codes.InvalidArgument {
				t.Errorf("a request that is no message at all: got %v, want InvalidArgument", err)
			}
			// The same call with a tenant that is one, and without any, passes.
			good, err := proto.Marshal(&coresdkv1.TenantContext{TenantId: "practice-1", Roles: []string{"admin"}, Attributes: map[string]string{"a": "b"}})
			noError(t, err)
			for _, body := range [][]byte{call.body, slices.Concat(call.body, text(call.tenant, string(good))), slices.Concat(call.body, text(call.tenant, ""))} {
				if _, err := rawCall(t, w.conn, call.method, body); err != nil {
					t.Errorf("a well-formed request: %v", err)
				}
			}
		})
	}
}

// rawCall makes one call with these bytes, and returns the first answer.
func rawCall(t *testing.T, conn *grpc.ClientConn, method string, body []byte) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	noError(t, err)
	noError(t, s.SendMsg(body))
	noError(t, s.CloseSend())
	var out []byte
	err = s.RecvMsg(&out)
	return out, err
}

func TestWhatWeDoNotServeIsUnimplemented(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ctx := t.Context()
	_, saml := w.auth.ValidateSAMLAssertion(ctx, &coresdkv1.ValidateSamlAssertionRequest{AssertionB64: "PHg+", TenantId: "north"})
	_, refresh := w.auth.RefreshToken(ctx, &coresdkv1.RefreshTokenRequest{RefreshToken: "r"})
	errs := map[string]error{"SAML": saml, "RefreshToken": refresh}
	for _, method := range []string{
		"/coresdk.v1.AuditService/Log", "/coresdk.v1.RateLimitService/Check", "/coresdk.v1.FlagsService/IsEnabled", "/coresdk.v1.LicenseService/Check",
		"/coresdk.v1.MaskingService/Mask", "/coresdk.v1.TenantService/GetTenant", "/coresdk.v1.SecretsService/GetSecret", "/coresdk.v1.JobsService/Enqueue",
		"/coresdk.v1.AuthService/Impersonate", "/medirecord.v1.GateService/Mint", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		_, errs[method] = rawCall(t, w.conn, method, nil)
	}
	for name, err := range errs {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v, want Unimplemented", name, err)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	health := healthpb.NewHealthClient(w.conn)
	eventually(t, "SERVING", func() bool {
		a, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && a.GetStatus() == healthpb.HealthCheckResponse_SERVING
	})
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	noError(t, err)
	if a, err := watch.Recv(); err != nil || a.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v; want SERVING", a, err)
	}
	w.server.Stop()
	for err == nil { // NOT_SERVING may arrive before the end
		var a *healthpb.HealthCheckResponse
		if a, err = watch.Recv(); err == nil && a.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			t.Error("SERVING after Stop")
		}
	}
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err == nil {
		t.Error("a stopped sidecar answers")
	}
}
