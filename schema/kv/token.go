package kv

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/pawl-project/pawl/schema"
)

// mostTokenRequest bounds a TokenRequest, in bytes.
const mostTokenRequest = 16 << 10

// DecodeTokenRequest reads the content of a token request.
func DecodeTokenRequest(data []byte) (schema.TokenRequest, error) {
	var r schema.TokenRequest
	if len(data) > mostTokenRequest {
		return r, fmt.Errorf("request for a token: %d bytes, the limit is %d: %w", len(data), mostTokenRequest, schema.ErrRefused)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return schema.TokenRequest{}, fmt.Errorf("request for a token: %w: %w", err, schema.ErrRefused)
	}
	return r, nil
}

// Token asks for a token of a pod of this node. The error wraps schema.ErrRefused
// when the pod may not have it, and schema.ErrUnavailable when the gateway does
// not answer or cannot tell yet.
func (a *Agent) Token(ctx context.Context, r schema.TokenRequest) (schema.Token, error) {
	content, err := json.Marshal(r)
	if err != nil {
		return schema.Token{}, fmt.Errorf("encode a request for a token: %w", err)
	}
	answer, err := a.ask(ctx, VerbToken, content)
	if err != nil {
		return schema.Token{}, err
	}
	if answer.Token == nil || answer.Token.Token == "" {
		return schema.Token{}, fmt.Errorf("the answer to a request for a token holds none: %w", schema.ErrUnavailable)
	}
	return *answer.Token, nil
}
