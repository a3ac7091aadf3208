package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Sample is one series' value at one time.
type Sample struct {
	Labels map[string]string // with the metric's name as __name__
	Value  float64
	Time   time.Time
}

// Target is one place that the server scrapes.
type Target struct {
	URL       string            `json:"scrapeUrl"`
	Labels    map[string]string `json:"labels"`
	Health    string            `json:"health"` // up, down or unknown
	LastError string            `json:"lastError"`
}

// Query is the value of the PromQL expression now: GET /api/v1/query.
func (s *Server) Query(ctx context.Context, expression string) ([]Sample, error) {
	data, err := s.get(ctx, "/api/v1/query", url.Values{"query": {expression}})
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	samples, err := parseSamples(data)
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	return samples, nil
}

// Wait is Query, again and again until there is a value.
func (s *Server) Wait(ctx context.Context, expression string) ([]Sample, error) {
	var samples []Sample
	err := hosttest.Poll(ctx, expression, func() (bool, error) {
		var err error
		samples, err = s.Query(ctx, expression)
		return len(samples) > 0, err
	})
	return samples, err
}

// Targets are the places that the server scrapes: GET /api/v1/targets.
func (s *Server) Targets(ctx context.Context) ([]Target, error) {
	data, err := s.get(ctx, "/api/v1/targets", url.Values{"state": {"active"}})
	if err != nil {
		return nil, fmt.Errorf("list the targets: %w", err)
	}
	var targets struct {
		Active []Target `json:"activeTargets"`
	}
	if err := json.Unmarshal(data, &targets); err != nil {
		return nil, fmt.Errorf("list the targets: %w", err)
	}
	return targets.Active, nil
}

// get asks the server's API and returns the answer's data.
func (s *Server) get(ctx context.Context, path string, values url.Values) (data json.RawMessage, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the answer (%s): %w", response.Status, err)
	}
	if answer.Status != "success" {
		return nil, errors.New(answer.Error)
	}
	return answer.Data, nil
}

// parseSamples reads the data of /api/v1/query.
func parseSamples(data []byte) ([]Sample, error) {
	var answer struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, err
	}
	switch answer.Type {
	case "scalar":
		var value value
		if err := json.Unmarshal(answer.Result, &value); err != nil {
			return nil, err
		}
		return []Sample{{Value: value.number, Time: value.at}}, nil
	case "vector":
		var series []struct {
			Metric map[string]string `json:"metric"`
			Value  value             `json:"value"`
		}
		if err := json.Unmarshal(answer.Result, &series); err != nil {
			return nil, err
		}
		samples := make([]Sample, len(series))
		for i, one := range series {
			samples[i] = Sample{Labels: one.Metric, Value: one.Value.number, Time: one.Value.at}
		}
		return samples, nil
	}
	return nil, fmt.Errorf("the answer is a %s, not one value for each series", answer.Type)
}

// value is a number and its time, as the API writes them: [1700000000.5, "42"].
type value struct {
	at     time.Time
	number float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(data []byte) error {
	var seconds float64
	var text string
	pair := []any{&seconds, &text}
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return err
	}
	v.at, v.number = time.UnixMilli(int64(seconds*1000)), number
	return nil
}
