{{/*
The operator's rights on the namespaces that it serves. docs/rbac.md says the same as a table, and a test compares the two.
Server-side apply is the verb patch, and create too where the object may not exist yet. Update is never used.
*/}}
{{- define "slipway.rules" -}}
# What users ask for. The operator never changes it.
- apiGroups: [slipway.dev]
  resources: [modeldeployments]
  verbs: [list, watch]
# What it says back: conditions, the state of a rollout.
- apiGroups: [slipway.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
# Children block their owner's foreground deletion. Clusters with OwnerReferencesPermissionEnforcement ask for this right then.
- apiGroups: [slipway.dev]
  resources: [modeldeployments/finalizers]
  verbs: [update]
# Revisions of a model, their pods, and the routers. get: an object of that name that is not Slipway's is looked at and left alone.
- apiGroups: [apps]
  resources: [controllerrevisions, deployments]
  verbs: [get, list, watch, create, patch, delete]
# One Service for a model's callers, a headless one for each revision.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.rbac.httpRoutes }}
# The way in from outside by a Gateway (routing.gateway). Gateways themselves are not even read.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .Values.rbac.ingresses }}
# The way in from outside by an Ingress (routing.ingress).
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .Values.rbac.jobs }}
# Checks of a rollout that are Jobs.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
# So that a node drain takes one pod at a time.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# The router's configuration and its account, which has no rights and no token. Watches name a label and rights cannot, so
# reading is for all of them...
- apiGroups: [""]
  resources: [configmaps, serviceaccounts]
  verbs: [list, watch]
# ... and writing for those of this name only.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts]
  resourceNames: [slipway-router]
  verbs: [get, create, patch, delete]
# Why a pod is not ready, in its own words; and an annotation on routers that makes the kubelet refresh their configuration at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# What pods use of the CPU, where scaling.objective.cpu asks for that.
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
# What `kubectl describe` shows of a rollout.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* The activator's rights on the same namespaces. */}}
{{- define "slipway.activatorRules" -}}
# Which pods of a model are ready. Watches name a label and rights cannot.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# It writes that somebody asks for a model without pods: status.activation, and nothing else of it.
- apiGroups: [slipway.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
{{- end -}}
