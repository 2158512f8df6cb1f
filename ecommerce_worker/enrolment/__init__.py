"""Enrolment of learners in what they, or others for them, have paid for; and what a refund takes back."""
