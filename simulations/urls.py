"""Pages of simulations."""

from django.urls import path

from simulations.showing import views

app_name = "simulations"
urlpatterns = [
    path("", views.home, name="home"),
    path("simulations/", views.simulations, name="simulations"),
    path("simulations/recent/", views.recent, name="recent"),
    path("simulations/estimate/", views.estimate, name="estimate"),
    path("simulations/split/", views.split, name="split"),
    path("simulations/<int:simulation_id>/", views.simulation, name="simulation"),
    path("simulations/<int:simulation_id>/stream/", views.live, name="stream"),
    path("simulations/<int:simulation_id>/events/", views.events, name="events"),
    path("simulations/<int:simulation_id>/place/", views.place, name="place"),
    path("simulations/<int:simulation_id>/clients/", views.clients, name="clients"),
    path("simulations/<int:simulation_id>/clients/<int:number>/", views.client, name="client"),
    path("simulations/<int:simulation_id>/economies/", views.economies, name="economies"),
    path("simulations/<int:simulation_id>/economies/clients/", views.economies_clients, name="economies_clients"),
    path("simulations/<int:simulation_id>/detectors/", views.detectors, name="detectors"),
    path("simulations/<int:simulation_id>/reprice/", views.reprice, name="reprice"),
    path("simulations/<int:simulation_id>/recompute/", views.recompute, name="recompute"),
    path("simulations/<int:simulation_id>/audit/", views.audit, name="audit"),
    path("simulations/<int:simulation_id>/audit/cancel/", views.cancel_audit, name="cancel_audit"),
    path("simulations/<int:simulation_id>/marginals/", views.marginals, name="marginals"),
    path("simulations/<int:simulation_id>/cancel/", views.cancel, name="cancel"),
    path("simulations/<int:simulation_id>/resume/", views.resume, name="resume"),
    path("simulations/<int:simulation_id>/archive/", views.archive, name="archive"),
    path("simulations/<int:simulation_id>/unarchive/", views.unarchive, name="unarchive"),
    path("simulations/<int:simulation_id>/again/", views.again, name="again"),
]
