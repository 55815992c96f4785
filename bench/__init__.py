"""What the platform costs, as ratios to what a user would pick instead and to what the stores can take, in one run.

python -m bench            # every case, a table, and bench/results/*.json
python -m bench --quick    # every case once, small: a check that they run
"""
