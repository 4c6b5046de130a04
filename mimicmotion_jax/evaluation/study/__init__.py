"""User studies (the paper's appendix C): two videos side by side, the better one chosen, and preferences counted."""
