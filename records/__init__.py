"Long runs that no notebook can repeat: what they are (a module each), and what came of them (a JSON beside it)."
